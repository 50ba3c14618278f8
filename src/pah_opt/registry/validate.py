"""A whole recipe compared with the registry, the machine and the data: every problem at once, before anything runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from pah_opt.environment import Obstacle
from pah_opt.errors import IncompatibleStepsError, Problem, RecipeError, UnknownOptimizerError, nearest_name
from pah_opt.optimizer import FRESH_TAGS, AnyOptimizer, Effect, Needs, OptimizerConfig, Tags
from pah_opt.registry.checked import CheckedRecipe, CheckedStep
from pah_opt.registry.needs import Supply
from pah_opt.registry.order import order_problems
from pah_opt.registry.parameters import typed_config

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pah_opt.environment import Environment
    from pah_opt.recipe import Recipe
    from pah_opt.registry.catalogue import Registry

T = TypeVar("T")


def validate(
    recipe: Recipe,
    registry: Registry,
    *,
    environment: Environment | None,
    calibration: bool = True,
    training: bool = True,
    initial_tags: frozenset[str] = FRESH_TAGS,
    known_figures: Collection[str] | None = None,
) -> CheckedRecipe:
    """Check a recipe as far as that is possible without the model.

    Args:
        recipe: the recipe.
        registry: the strategies to choose from.
        environment: the machine it would run on; None for any, whatever it lacks.
        calibration: whether calibration images will be there.
        training: whether training images will be there.
        initial_tags: state tags of the model before the first step.
        known_figures: names that gates may use; None when that is checked elsewhere.

    Returns:
        Every step with its Optimizer and typed config.

    Raises:
        RecipeError: with every problem, in the order of the recipe.
        UnknownOptimizerError: every problem is an unknown strategy.
        IncompatibleStepsError: every problem is one of order.
    """
    found = _Findings(recipe, registry, Supply(environment, calibration, training))
    steps = [found.step(index) for index in range(len(recipe.steps))]
    found.order += order_problems(recipe, [step.tags if step else None for step in steps], initial_tags)
    found.others += _gate_problems(recipe, known_figures)
    found.raise_if_any()
    return CheckedRecipe(recipe, _aligned([step for step in steps if step]), initial_tags)


def missing_here(recipe: Recipe, registry: Registry, environment: Environment) -> tuple[Obstacle, ...]:
    """Return what keeps the steps of a recipe, with their own parameters, from running on this machine.

    Raises:
        RecipeError: the recipe is wrong as written, on any machine.
    """
    steps = validate(recipe, registry, environment=None).steps
    hardware = [lack for step in steps for lack in Supply(environment).unmet_hardware(step.needs)]
    found = [obstacle for step in steps for obstacle in step.optimizer.available(environment)]
    return tuple(dict.fromkeys([*found, *(Obstacle(reason, remedy) for reason, remedy in hardware)]))


@dataclass
class _Findings:
    """Collects problems by kind while steps are checked one by one."""

    recipe: Recipe
    registry: Registry
    supply: Supply
    unknown: list[Problem] = field(default_factory=list)
    order: list[Problem] = field(default_factory=list)
    others: list[Problem] = field(default_factory=list)

    def step(self, index: int) -> CheckedStep | None:
        """Check one step by itself; None when its effect on tags cannot be known."""
        step = self.recipe.steps[index]
        registered = self.registry.optimizers.get(step.use)
        if registered is None:
            self.unknown.append(self.registry.unknown(step.use, self.recipe.place("steps", index, "use")))
            return None
        optimizer = registered.optimizer
        here = self.supply.environment
        asked = here and self._ask(index, "available", lambda: optimizer.available(here), tuple)
        for obstacle in asked or ():
            self._add(index, obstacle.reason, obstacle.remedy)
        config = typed_config(self.recipe, index, optimizer)
        if isinstance(config, list):
            self.others += config
            return None
        return self._declared(index, optimizer, config)

    def _declared(self, index: int, optimizer: AnyOptimizer, config: OptimizerConfig) -> CheckedStep | None:
        """Ask the Optimizer what it declares for this config."""
        tags = self._ask(index, "tags", lambda: optimizer.tags(config), Tags)
        needs = self._ask(index, "needs", lambda: optimizer.needs(config), Needs)
        promises = self._ask(index, "expects", lambda: optimizer.expects(config), Effect)
        align = self._ask(index, "alignment", lambda: optimizer.alignment(config), int)
        if tags is None or needs is None or promises is None or align is None:
            return None
        for message, remedy in self.supply.unmet(needs):
            self._add(index, message, remedy)
        return CheckedStep(index, self.recipe.steps[index], optimizer, config, tags, needs, promises, max(1, align))

    def _ask(self, index: int, method: str, call: Callable[[], object], kind: type[T]) -> T | None:
        """Call a plugin's method, which may raise or answer anything; that is a problem of its step."""
        try:
            answer = call()
        except Exception as error:  # noqa: BLE001  # a plugin may raise anything
            self._add(index, f"its {method}() failed with {type(error).__name__}: {error}", "report it to its plugin")
            return None
        if isinstance(answer, kind):
            return answer
        self._add(index, f"its {method}() returned {answer!r}, not {kind.__name__}", "report it to its plugin")
        return None

    def _add(self, index: int, message: str, remedy: str) -> None:
        self.others.append(Problem(message, self.recipe.place("steps", index), remedy=remedy))

    def raise_if_any(self) -> None:
        """Raise what was found, as the most telling kind of error."""
        problems = [*self.unknown, *self.order, *self.others]
        if not problems:
            return
        kind = RecipeError
        if len(self.unknown) == len(problems):
            kind = UnknownOptimizerError
        elif len(self.order) == len(problems):
            kind = IncompatibleStepsError
        title = f"recipe {self.recipe.name!r} cannot be run"
        raise kind(sorted(problems, key=lambda p: (p.place.step is None, p.place.step or 0)), title)


def _gate_problems(recipe: Recipe, known: Collection[str] | None) -> list[Problem]:
    return [
        Problem(
            f"there is no figure {name!r}",
            recipe.place("gates", name),
            ", ".join(sorted(known)),
            nearest_name(name, known),
        )
        for name in recipe.gates
        if known is not None and name not in known
    ]


def _aligned(steps: list[CheckedStep]) -> tuple[CheckedStep, ...]:
    """Give each step the multiple that satisfies all steps after it; until here ``align`` held what it asks for."""
    wanted = [step.align for step in steps]
    return tuple(replace(step, align=math.lcm(*wanted[i + 1 :])) for i, step in enumerate(steps))
