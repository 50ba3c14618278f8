"""The strong ends of a space: its cheapest recipe, and what differs from it in one thing that costs little."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pah_opt.search.bound import distinct, same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pah_opt.search.bound import BoundSpace, Values
    from pah_opt.search.budget import Budget
    from pah_opt.search.parameters import Parameter, Value
    from pah_opt.search.records import Record

    Predict = Callable[[Values], float | None]

HOPELESS_PP = 10.0
"""Percentage points above the limit from which another choice with the same steps is not expected to save a recipe."""
AS_CHEAP = 1.02
"""Recipes of up to so many times the least cost are as cheap."""


@dataclass(frozen=True)
class Ends:
    """The cheapest recipe, or one that is as cheap, first; then what differs from it in one thing.

    Each choice (but those of places) is made otherwise, since recipes of one size may lose very different amounts, such
    as those that prune by another scope; and each optional step is left out, since two strong steps are often enough,
    with the choices that are cheapest then.
    Other choices are left out where the first loses far too much, and what saves less than half as much always is.

    Args:
        bound: the space.
        budget: the limits.
        cheapest: its cheapest recipe.
        predict: tells what a recipe will cost; None where it cannot tell, infinite where it cannot be run.
    """

    bound: BoundSpace
    budget: Budget
    cheapest: Values
    predict: Predict

    def __call__(self, records: Sequence[Record]) -> Iterator[Values]:
        """Yield them, those that were tried already too."""
        first, *others = self._choices()
        yield first
        known, most = _record_of(first, records), self._most_cost(first, records)
        hopeless = known is not None and self._is_hopeless(known)
        for values in [*([] if hopeless else others), *self._without_a_step()]:
            cost = self.predict(values)
            if cost is None or cost < most:
                yield values

    def _most_cost(self, first: Values, records: Sequence[Record]) -> float:
        """Return half way from the best so far to the cheapest recipe: what saves less than that is no end."""
        best, least = best_cost(records, self.budget), self.predict(first)
        return math.inf if best is None or least is None else (best + least) / 2

    def every(self) -> list[Values]:
        """Return all that may be tried."""
        return distinct([*self._choices(), *self._without_a_step()])

    def _choices(self) -> list[Values]:
        choices = [each for each in self.bound.parameters if each.kind == "choice" and each.path and each.per is None]
        found = [
            self._otherwise(each, label)
            for each in choices
            if each.name in self.cheapest
            for label in reversed(each.labels)
        ]
        most = AS_CHEAP * self._cost(self.cheapest)
        if most == math.inf:  # nothing can be predicted
            return distinct([self.cheapest, *found])
        return distinct(sorted(found, key=lambda values: self._cost(values) > most) or [self.cheapest])

    def _without_a_step(self) -> list[Values]:
        there = [each for each in self.bound.switches if each.value(self.cheapest[each.name])]
        return distinct(self._chosen_anew(self._otherwise(each, each.at(0.0))) for each in there)

    def _chosen_anew(self, values: Values) -> Values:
        """Make every choice again, what is cheapest by plan: without zeros, fewer bits may be cheaper than more."""
        for places in self.bound.groups().values():
            names = [each.name for each in places if each.name in values]
            if names and places[0].path and places[0].kind == "choice":
                options = [{**values, **dict.fromkeys(names, label)} for label in places[0].labels]
                values = min([values, *options], key=self._cost)
        return values

    def _cost(self, values: Values) -> float:
        cost = self.predict(values)
        return math.inf if cost is None else cost

    def _otherwise(self, each: Parameter, value: Value) -> Values:
        known = {**self.cheapest, each.name: value}
        return self.bound.choose(lambda one: known.get(one.name, one.at(0.5)))

    def _is_hopeless(self, record: Record) -> bool:
        drop = record.figures.get("top1_drop_pp")
        return drop is not None and drop > self.budget.top1_drop_pp + HOPELESS_PP


def _record_of(values: Values, records: Sequence[Record]) -> Record | None:
    return next((record for record in records if same(dict(record.values), values)), None)


def best_cost(records: Sequence[Record], budget: Budget) -> float | None:
    """Return what the cheapest recipe that keeps the limits should cost by its plan: plans are compared with plans."""
    figure = budget.figure
    kept = [record for record in records if record.keeps(budget) and record.figures.get(figure) is not None]
    if not kept:
        return None
    best = min(kept, key=lambda record: record.figures[figure] or 0.0)
    return best.predicted.get(figure, best.figures[figure])
