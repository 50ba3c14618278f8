"""The least that a space can reach, found on plans alone: so that limits nothing can meet are said at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pah_opt.errors import Problem, RecipeError
from pah_opt.search.judge import DOUBTED_LATENCY, SLACK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.search.bound import BoundSpace, Values
    from pah_opt.search.budget import Budget
    from pah_opt.search.judge import Judge
    from pah_opt.search.parameters import Parameter, Value

PLANNED = {"params": 1.0, "macs": 1.0, "artifact_bytes": SLACK, "latency_p50_ms": DOUBTED_LATENCY}
"""Figures that can be predicted, and how far below the prediction the truth may lie."""
MOST_PLANS = 60


@dataclass
class Extremes:
    """Finds the strongest recipes of a space, one parameter at a time.

    Args:
        bound: the space.
        judge: predicts.
        by_place: try each place's choice by itself too, not only the same one at all places: slower, and finds more
            where places differ in what makes them cheap.
        most_plans: how many recipes are planned at most.
    """

    bound: BoundSpace
    judge: Judge
    by_place: bool = True
    most_plans: int = MOST_PLANS
    _known: dict[str, dict[str, float] | None] = field(default_factory=dict)

    def least(self, figure: str) -> tuple[float, Values] | None:
        """Return the least value of a figure that was found, and how; None when nothing could be planned.

        Each parameter in turn takes whichever of its values (ends and middle of a range) gives the least, until a
        whole turn improves nothing. That finds the least of the space where parameters do not work against one
        another, as with limits of size; it looks at no more than ``most_plans``.
        """
        best: tuple[float, Values] | None = None
        for share in (1.0, 0.0, 0.5):
            values = self.bound.choose(lambda each, share=share: _start(each, share))  # type: ignore[misc]
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
            costs = [self._figure(values, figure) for values in others if values != best[1]]
            if all(cost is None or cost > best[0] for cost in costs):
                found |= {name: best[1][name] for name in there}
        return found

    def _alternative(self, names: list[str], value: Value, base: Values) -> Values:
        known = {**base, **dict.fromkeys(names, value)}
        return self.bound.choose(lambda each: known.get(each.name, each.at(0.5)))

    def _turn(self, places: Sequence[Parameter], best: tuple[float, Values], figure: str) -> tuple[float, Values]:
        """Give all ``places`` the same value, each of their values in turn; return the best of all."""
        there = [each.name for each in places if each.name in best[1]]
        for value in places[0].probes() if there else ():
            if len(self._known) >= self.most_plans:
                break
            values = self._alternative(there, value, best[1])
            found = self._figure(values, figure)
            if found is not None and found < best[0]:
                best = (found, values)
        return best

    def _figure(self, values: Values, figure: str) -> float | None:
        recipe = self.bound.recipe(values, "extreme")
        if recipe is None:
            dense = self.judge.dense.get(figure)
            return None if dense is None else float(dense)
        if recipe.sha256 not in self._known:
            try:
                self._known[recipe.sha256] = self.judge.predict(recipe)
            except RecipeError:
                self._known[recipe.sha256] = None
        predicted = self._known[recipe.sha256]
        return None if predicted is None else predicted.get(figure)


def _start(each: Parameter, share: float) -> Value:
    return each.at(share if each.path else 1.0)


def check_limits(bound: BoundSpace, judge: Judge, budget: Budget) -> list[Values]:
    """Return the strongest recipe for each limited figure that can be planned.

    Raises:
        RecipeError: a limit that no recipe of the space can meet; says the nearest that can be had.
    """
    extremes = Extremes(bound, judge)
    problems, strongest = [], []
    for name, limit in _limits(budget, judge).items():
        found = extremes.least(name)
        if found is None:
            continue
        strongest.append(found[1])
        if found[0] / PLANNED[name] > limit:
            problems.append(_problem(name, limit, found, bound))
    if problems:
        raise RecipeError(problems, f"no recipe of space {bound.space.name!r} can meet the limits")
    return strongest


def _limits(budget: Budget, judge: Judge) -> dict[str, float]:
    limits = {name: gate.max for name, gate in budget.limits().items() if name in PLANNED and gate.max is not None}
    dense = judge.dense.get("latency_p50_ms")
    if budget.speedup_x is not None and dense is not None:
        limits["latency_p50_ms"] = dense / budget.speedup_x
    return limits


def _problem(name: str, limit: float, found: tuple[float, Values], bound: BoundSpace) -> Problem:
    recipe = bound.recipe(found[1], "nearest")
    how = "the dense model" if recipe is None else recipe.to_json().replace("\n", " ")
    return Problem(
        f"{name} is limited to {limit:,.6g}, and the least found in this space is {found[0]:,.6g}",
        remedy=f"loosen the limit, or widen the space; the nearest: {' '.join(how.split())}",
    )
