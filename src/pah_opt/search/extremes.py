"""The least that a space can reach, found on plans alone: so that limits nothing can meet are said at once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from pah_opt.errors import Problem, RecipeError
from pah_opt.search.judge import DOUBT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pah_opt.search.bound import BoundSpace, Values
    from pah_opt.search.budget import Budget
    from pah_opt.search.judge import Judge
    from pah_opt.search.parameters import Parameter, Value

PLANNED = {"params": 1.0, "macs": 1.0, **DOUBT}
"""Figures that can be predicted, and how far below the prediction the truth may lie."""
MOST_PLANS = 60
SHARES = (1.0, 0.0, 0.5)
"""Of every range: where the search for an extreme begins."""
EXCESS = "excess"
"""By how much a recipe misses all limits together, as a sum of shares: no figure of a report, but found like one."""
NAME = "extreme"


class Checked(NamedTuple):
    """What planning the strongest recipes of a space gave.

    Args:
        strongest: for each limited figure that can be planned, and for all of them together.
        doubt: why the limits may not be met together, although each can be; None where a planned recipe meets them.
    """

    strongest: list[Values]
    doubt: str | None = None


@dataclass
class Extremes:
    """Finds the strongest recipes of a space, one parameter at a time.

    Args:
        bound: the space.
        judge: predicts.
        by_place: try each place's choice by itself too, not only the same one at all places: slower, and finds more
            where places differ in what makes them cheap.
        most_plans: how many recipes are planned at most for each figure.
        limits: for the figure :data:`EXCESS`: the most of each figure that may be had.
        until: a time of :func:`time.perf_counter` after which nothing new is planned.
    """

    bound: BoundSpace
    judge: Judge
    by_place: bool = True
    most_plans: int = MOST_PLANS
    limits: Mapping[str, float] = field(default_factory=dict)
    until: float = float("inf")
    _known: dict[str, dict[str, float] | RecipeError] = field(default_factory=dict)
    _planned: int = 0

    def refusal(self, starts: Sequence[Values] = ()) -> RecipeError | None:
        """Return why no recipe can be planned: of ``starts``, ends, middle, and random ones, ``most_plans`` in all.

        One that can be is enough, so that this takes a single plan as a rule: that of the first start, which is tried
        first. What is returned is why the strongest cannot be.
        """
        generator = Random(0)
        reasons = []
        for values in (*starts, *(_all(self.bound, share) for share in SHARES)):
            found = self._plan(values)
            if not isinstance(found, RecipeError):
                return None
            reasons.append(found)
        strongest = reasons[len(starts)]
        for _ in range(self.most_plans - len(reasons)):
            if not isinstance(self._plan(self.bound.at_random(generator)), RecipeError):
                return None
        return strongest

    def least(self, figure: str) -> tuple[float, Values] | None:
        """Return the least value of a figure that was found, and how; None when nothing could be planned.

        Each parameter in turn takes whichever of its values (ends and middle of a range) gives the least, until a
        whole turn improves nothing. That finds the least of the space where parameters do not work against one
        another, as with limits of size; it looks at no more than ``most_plans``.
        """
        self._planned = 0
        best: tuple[float, Values] | None = None
        for share in SHARES:
            values = _all(self.bound, share)
            found = self._figure(values, figure)
            if found is not None and (best is None or found < best[0]):
                best = (found, values)
        together = list(self.bound.groups().values())
        alone = [(each,) for each in self.bound.parameters if each.per is not None] if self.by_place else []
        improved = best is not None
        while improved and best is not None:
            improved = False
            for places in (*together, *alone):
                better = self._turn(places, best, figure)
                improved, best = improved or better is not best, better
        return best

    def decisive(self, best: tuple[float, Values], figure: str) -> Values:
        """Return those of the values of :meth:`least` whose every alternative costs more: what makes it cheap."""
        found: Values = {}
        for places in self.bound.groups().values():
            there = [each.name for each in places if each.name in best[1]]
            others = [self._alternative(there, value, best[1]) for value in places[0].probes()] if there else []
            others = [
                values for values in others if values != best[1] and (self._is_known(values) or not self._is_late)
            ]
            costs = [self._figure(values, figure) for values in others]
            if costs and all(cost is None or cost > best[0] for cost in costs):
                found |= {name: best[1][name] for name in there}
        return found

    def _alternative(self, names: list[str], value: Value, base: Values) -> Values:
        known = {**base, **dict.fromkeys(names, value)}
        return self.bound.choose(lambda each: known.get(each.name, each.at(0.5)))

    def _turn(self, places: Sequence[Parameter], best: tuple[float, Values], figure: str) -> tuple[float, Values]:
        """Give all ``places`` the same value, each of their values in turn; return the best of all."""
        there = [each.name for each in places if each.name in best[1]]
        for value in places[0].probes() if there else ():
            values = self._alternative(there, value, best[1])
            if self._is_spent and not self._is_known(values):
                continue
            found = self._figure(values, figure)
            if found is not None and found < best[0]:
                best = (found, values)
        return best

    @property
    def _is_spent(self) -> bool:
        return self._planned >= self.most_plans or self._is_late

    @property
    def _is_late(self) -> bool:
        return time.perf_counter() >= self.until

    def _is_known(self, values: Values) -> bool:
        recipe = self.bound.recipe(values, NAME)
        return recipe is None or recipe.sha256 in self._known

    def _figure(self, values: Values, figure: str) -> float | None:
        predicted = self._plan(values)
        if isinstance(predicted, RecipeError):
            return None
        found = self._excess(predicted) if figure == EXCESS else predicted.get(figure)
        return None if found is None else float(found)

    def _excess(self, predicted: Mapping[str, float | None]) -> float:
        known = ((value / PLANNED[name], limit) for name, limit in self.limits.items()
                 if (value := predicted.get(name)) is not None)  # fmt: skip
        return sum(max(0.0, value / limit - 1.0) for value, limit in known)

    def _plan(self, values: Values) -> Mapping[str, float | None] | RecipeError:
        recipe = self.bound.recipe(values, NAME)
        if recipe is None:
            return self.judge.dense
        if recipe.sha256 not in self._known:
            self._planned += 1
            try:
                self._known[recipe.sha256] = self.judge.predict(recipe)
            except RecipeError as error:
                self._known[recipe.sha256] = error
        return self._known[recipe.sha256]


def _all(bound: BoundSpace, share: float) -> Values:
    """Choose that share of every range, with every optional step."""
    return bound.choose(lambda each: each.at(share if each.path else 1.0))


def check_limits(bound: BoundSpace, judge: Judge, budget: Budget, starts: Sequence[Values] = ()) -> Checked:
    """Return the strongest recipes of the space.

    Args:
        bound: the space.
        judge: predicts.
        budget: the limits.
        starts: recipes that are tried first, so that a plan of theirs is not made for nothing.

    Limits that are missed together only are a doubt and no error: what is the least of one figure is known, what can
    be had of several at a time is searched for.

    Raises:
        RecipeError: a limit that no recipe of the space can meet, with the nearest that can be had; or nothing in the
            space can be planned.
    """
    limits = _limits(budget, judge)
    extremes = Extremes(bound, judge, limits=limits)
    refused = extremes.refusal(starts)
    if refused is not None:
        raise RecipeError(
            refused.problems,
            f"none of the recipes of space {bound.space.name!r} that were looked at can be run; the first of them",
        )
    least = {name: found for name in limits if (found := extremes.least(name)) is not None}
    problems = [
        _problem(name, limits[name], found, bound)
        for name, found in least.items()
        if found[0] / PLANNED[name] > limits[name]
    ]
    if problems:
        raise RecipeError(problems, f"no recipe of space {bound.space.name!r} can meet the limits")
    together = extremes.least(EXCESS) if len(least) > 1 else None
    strongest = [values for _, values in [*least.values(), *([together] if together else [])]]
    if together is None or not together[0]:
        return Checked(strongest)
    return Checked(
        strongest, f"each limit can be met, but no recipe that was planned meets {' and '.join(least)} together; the "
        f"nearest misses them by {100 * together[0]:.0f} % in all: {_written(together[1], bound)}",
    )  # fmt: skip


def _limits(budget: Budget, judge: Judge) -> dict[str, float]:
    limits = {name: gate.max for name, gate in budget.limits().items() if name in PLANNED and gate.max is not None}
    dense = judge.dense.get("latency_p50_ms")
    if budget.speedup_x is not None and dense is not None:
        limits["latency_p50_ms"] = dense / budget.speedup_x
    return limits


def _problem(name: str, limit: float, found: tuple[float, Values], bound: BoundSpace) -> Problem:
    return Problem(
        f"{name} is limited to {limit:,.6g}, and the least found in this space is {found[0]:,.6g}",
        remedy=f"loosen the limit, or widen the space; the nearest: {_written(found[1], bound)}",
    )


def _written(values: Values, bound: BoundSpace) -> str:
    recipe = bound.recipe(values, "nearest")
    return "the dense model" if recipe is None else " ".join(recipe.to_json().split())
