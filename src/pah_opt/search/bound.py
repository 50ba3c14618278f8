"""A space bound to a model and a registry: its parameters one by one, and recipes made from their values."""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose, prod
from typing import TYPE_CHECKING, Any

from pah_opt.errors import PahOptError, Problem, RecipeError
from pah_opt.models import find_adapter
from pah_opt.models.selection import all_linears
from pah_opt.pipeline import plan
from pah_opt.recipe import Recipe, Step
from pah_opt.recipe.mistakes import read_strictly
from pah_opt.search.parameters import Parameter, Value, choices_in, is_choice, parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from random import Random

    from torch import nn

    from pah_opt.layout import Layout
    from pah_opt.registry import Registry
    from pah_opt.search.space import Space

Values = dict[str, Value]
"""What was chosen, by name of the parameter; parameters of a step that is left out are missing."""


@dataclass(frozen=True)
class BoundSpace:
    """A space with everything that is chosen in it.

    Args:
        space: as it was written.
        parameters: what is chosen, in the order of the steps.
        seed: of every recipe.
    """

    space: Space
    parameters: tuple[Parameter, ...]
    seed: int = 0

    @classmethod
    def of(cls, space: Space, registry: Registry, model: nn.Module, layout: Layout, seed: int = 0) -> BoundSpace:
        """Bind a space.

        Raises:
            RecipeError: with everything that is wrong with it, each with its line.
        """
        binder = _Binder(space, registry, model, layout)
        found = tuple(each for step in range(len(space.steps)) for each in binder.step(step))
        if not binder.problems:
            binder.check_places(found)
        if binder.problems:
            raise RecipeError(binder.problems, f"search space {space.name!r} cannot be searched")
        if prod(each.size for each in found) < 2:
            raise RecipeError(
                f"space {space.name!r} holds a single recipe, so there is nothing to choose; run it with pah-opt run, "
                "or give a parameter choices or a range"
            )
        return cls(space, found, seed)

    @property
    def size(self) -> float:
        """How many combinations there are at most; infinite with a continuous range."""
        return prod(each.size for each in self.parameters)

    @property
    def switches(self) -> list[Parameter]:
        """Whether each optional step is there."""
        return [each for each in self.parameters if not each.path]

    def named(self, name: str) -> Parameter:
        """Return a parameter by its name."""
        return next(each for each in self.parameters if each.name == name)

    def choose(self, pick: Callable[[Parameter], Value]) -> Values:
        """Ask ``pick`` for every value that counts: nothing is asked of a step that was left out."""
        chosen: Values = {}
        absent: set[int] = set()
        for each in self.parameters:
            if each.step in absent:
                continue
            chosen[each.name] = pick(each)
            if not each.path and not each.value(chosen[each.name]):
                absent.add(each.step)
        return chosen

    def at_random(self, generator: Random) -> Values:
        """Choose everything at random."""
        return self.choose(lambda each: each.at(generator.random()))

    def neighbour(self, values: Values, generator: Random, changes: int = 1) -> Values:
        """Change about ``changes`` of the values, numbers by little; what a new step needs is chosen at random.

        One value changes for certain; which one, is drawn among parameters, those of all places (``per``) counting as
        one: else a space with a choice for each layer would hardly ever change anything else.
        """
        share = changes / max(1, len(values))
        groups = [[each.name for each in places if each.name in values] for places in self.groups().values()]
        forced = generator.choice(generator.choice([group for group in groups if group]))

        def pick(each: Parameter) -> Value:
            old = values.get(each.name)
            if old is None:
                return each.at(generator.random())
            return _moved(each, old, generator) if each.name == forced or generator.random() < share else old

        return self.choose(pick)

    def between(self, values: Values, goal: Values, share: float, generator: Random) -> Values:
        """Go a share of the way to ``goal``: numbers that far, choices with that probability.

        Args:
            values: where to start.
            goal: where to go; what it does not name stays.
            share: of the way, 0 to 1.
            generator: draws the choices.
        """

        def pick(each: Parameter) -> Value:
            old = values.get(each.name, goal.get(each.name, each.at(0.5)))
            new = goal.get(each.name, old)
            if each.kind == "choice":
                return new if generator.random() < share else old
            return each.at(each.share_of(old) + share * (each.share_of(new) - each.share_of(old)))

        return self.choose(pick)

    def groups(self) -> dict[str, list[Parameter]]:
        """Return the parameters by what they choose: those of all places (``per``) together, every other one alone."""
        found: dict[str, list[Parameter]] = {}
        for each in self.parameters:
            name = each.name if each.per is None else each.name.removesuffix(str(each.path[-1]))
            found.setdefault(name, []).append(each)
        return found

    def recipe(self, values: Mapping[str, Value], name: str) -> Recipe | None:
        """Make the recipe; None when every step was left out."""
        steps = [
            Step.of(template.use, **self._filled(index, template.with_, values))
            for index, template in enumerate(self.space.steps)
            if self._is_there(index, values)
        ]
        return Recipe(name=name, seed=self.seed, steps=steps) if steps else None

    def _is_there(self, step: int, values: Mapping[str, Value]) -> bool:
        switch = next((each for each in self.parameters if each.step == step and not each.path), None)
        return switch is None or bool(switch.value(values[switch.name]))

    def _filled(self, step: int, template: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
        filled: dict[str, Any] = _fixed(template)
        for each in self.parameters:
            if each.step == step and each.path and each.name in values:
                place = filled
                for key in each.path[:-1]:
                    place = place.setdefault(str(key), {})
                place[str(each.path[-1])] = each.value(values[each.name])
        return filled


def same(values: Values, others: Values) -> bool:
    """Tell whether two recipes are one, but for how a storage rounds numbers."""
    return values.keys() == others.keys() and all(_near(values[name], others[name]) for name in values)


def _near(value: Value, other: Value) -> bool:
    if isinstance(value, str) or isinstance(other, str):
        return value == other
    return isclose(value, other, rel_tol=1e-9, abs_tol=1e-12)


def distinct(found: Iterable[Values]) -> list[Values]:
    """Return each recipe once, in the order of the first."""
    return list({repr(sorted(values.items())): values for values in found}.values())


def _fixed(template: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _fixed(value) if hasattr(value, "items") else value
        for key, value in template.items()
        if not is_choice(value)
    }


def _moved(each: Parameter, old: Value, generator: Random) -> Value:
    if each.kind == "choice":
        others = [label for label in each.labels if label != old]
        return generator.choice(others or each.labels)
    return each.at(min(1.0, max(0.0, each.share_of(old) + generator.gauss(0.0, 0.15))))


def _places(model: nn.Module, layout: Layout) -> dict[str, list[str]]:
    return {
        "block": [f"{block.path}.*" for block in layout.blocks],
        "layer": [path for path in all_linears(model, layout) if path not in layout.classifiers],
    }


class _Binder:
    """Makes the parameters of each step, and collects what is wrong."""

    def __init__(self, space: Space, registry: Registry, model: nn.Module, layout: Layout) -> None:
        self.space, self.registry, self.model = space, registry, model
        self.problems: list[Problem] = []
        self.places = _places(model, layout)

    def step(self, index: int) -> list[Parameter]:
        """Return what is chosen in one step."""
        template = self.space.steps[index]
        label = f"{index + 1}.{template.use}"
        made = [Parameter(label, index, (), "choice", (False, True))] if template.optional else []
        registered = self.registry.optimizers.get(template.use)
        if registered is None:
            self.problems.append(self.registry.unknown(template.use, self.space.place(index)))
            return made
        config_type = registered.optimizer.config_type
        schema = config_type.model_json_schema(by_alias=True)
        for path, spec in choices_in(template.with_):
            try:
                found = parameter(".".join((label, *map(str, path))), index, path, spec, schema)
            except ValueError as error:
                self.problems.append(Problem(str(error), self.space.place(index, *path)))
                continue
            made += self._spread(found)
        self._check_values(index, made, config_type)
        return made

    def check_places(self, found: tuple[Parameter, ...]) -> None:
        """Find steps that rename or remove the blocks or layers to which a later step gives one choice each."""
        bound = BoundSpace(self.space, found)
        later = {each.step: each for each in found if each.per is not None}
        for index in range(max(later, default=0)):
            gone = self._gone_after(index, bound)
            for step, each in later.items():
                missing = [place for place in self.places[str(each.per)] if place in gone]
                if step > index and missing:
                    self.problems.append(self._renamed(index, each, missing[0]))

    def _gone_after(self, index: int, bound: BoundSpace) -> set[str]:
        """Return the places that the model no longer has after one step, planned alone in the middle of its ranges."""
        middle: Mapping[str, Value] = bound.choose(lambda each: each.at(0.5 if each.path else 1.0))
        template = self.space.steps[index]
        alone = Recipe(steps=[Step.of(template.use, **bound._filled(index, template.with_, middle))])  # noqa: SLF001
        try:
            after = plan(self.model, alone, registry=self.registry).model
            if after is None:
                return set()
            left = _places(after, find_adapter(after, self.registry.adapters).layout(after))
        except PahOptError:
            return set()  # it needs the steps before it, or leaves what no adapter reads: its own trials will tell
        return {place for kind, places in self.places.items() for place in places if place not in left[kind]}

    def _renamed(self, index: int, each: Parameter, missing: str) -> Problem:
        use = self.space.steps[index].use
        return Problem(
            f"per: {each.per} gives {missing!r} a choice of its own, and step {index + 1} ({use}) leaves no such "
            f"{each.per}: every recipe with both would be refused",
            self.space.place(each.step, *each.path[:-1]),
            remedy=f"leave out {use}, or choose by groups of layers (qkv, attention-output, mlp) instead",
        )

    def _spread(self, found: Parameter) -> list[Parameter]:
        """Give a parameter that is chosen per block or layer one choice for each."""
        if found.per is None:
            return [found]
        copies = []
        for place in self.places[found.per]:
            given = {**vars(found), "name": f"{found.name}.{place}", "path": (*found.path, place)}
            copies.append(Parameter(**given))
        return copies

    def _check_values(self, index: int, made: list[Parameter], config_type: type[Any]) -> None:
        """Try each value in the strategy's own config; what follows from other parameters is no fault of it."""
        bound = BoundSpace(self.space, tuple(made))
        middle: Mapping[str, Value] = bound.choose(lambda each: each.at(0.5 if each.path else 1.0))
        seen: set[tuple[Any, ...]] = set()
        trials = [middle] + [{**middle, each.name: value} for each in made if each.path for value in each.probes()]
        for values in trials:
            filled = bound._filled(index, self.space.steps[index].with_, values)  # noqa: SLF001  # this module's
            mistakes = read_strictly(config_type, filled)
            for mistake in mistakes if isinstance(mistakes, list) else ():
                if mistake.path and (mistake.path, mistake.message) not in seen:
                    seen.add((mistake.path, mistake.message))
                    place = self.space.place(index, *mistake.path)
                    self.problems.append(Problem(mistake.message, place, mistake.allowed, mistake.nearest))
