"""From the cheapest recipes of a space back to what keeps the limit of accuracy: a few trials on the line to each.

The cheapest recipe shows what a space can save, and mostly loses too much. How much of that can be kept is found along
the line between it and the same steps at the gentle ends of their ranges. The loss of pruning and quantization grows
about exponentially with their strength, so two points of a line tell where it should cross the limit; no trial is spent
where a plan says that nothing is saved against what was found already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

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
LEAST_PP = 0.1
"""A loss below this counts as this: that of the gentle end of a line, too."""
CLOSE = 1 / 16
"""Share of a line that is not halved any further."""
PROBES = 5
"""Halvings to find where a line begins to save."""


@dataclass(frozen=True)
class Ends:
    """The cheapest recipe, and what differs from it in one thing that costs little.

    Each choice (but those of places) is made otherwise, since recipes of one size may lose very different amounts, such
    as those that prune by another scope; and each optional step is left out, since two strong steps are often enough,
    with the choices that are cheapest then.
    Other choices are left out where the first loses far too much, and what saves less than half as much always is.

    Args:
        bound: the space.
        budget: the limits.
        cheapest: its cheapest recipe.
        predict: tells what a recipe will cost; None where it cannot tell.
    """

    bound: BoundSpace
    budget: Budget
    cheapest: Values
    predict: Predict

    def __call__(self, records: Sequence[Record]) -> Iterator[Values]:
        """Yield them, those that were tried already too."""
        first, *others = self._choices()
        yield first
        known = _record_of(first, records)
        if known is None or not self._is_hopeless(known):
            yield from others
        most = self._most_cost(first, records)
        for values in self._without_a_step():
            cost = self.predict(values)
            if most is None or cost is None or cost < most:
                yield values

    def _most_cost(self, first: Values, records: Sequence[Record]) -> float | None:
        """Return half way from the best so far to the cheapest recipe: what saves less than that is no end."""
        best, least = _best_cost(records, self.budget), self.predict(first)
        return None if best is None or least is None else (best + least) / 2

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
        return distinct(found or [self.cheapest])

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


class Crossing(NamedTuple):
    """Where the limit may lie on a line.

    Args:
        low: the largest share that is known to keep the limit, 0 where none is.
        low_pp: top-1 lost there, in percentage points.
        high: the least share above it that is known to miss it.
        high_pp: top-1 lost there.
    """

    low: float
    low_pp: float
    high: float
    high_pp: float

    def at(self, limit_pp: float) -> float:
        """Return the share at which the loss should be that of the limit."""
        low, high = math.log(max(self.low_pp, LEAST_PP)), math.log(max(self.high_pp, LEAST_PP))
        wanted = math.log(max(limit_pp, LEAST_PP))
        share = (wanted - low) / (high - low) if high > low else 0.5
        return self.low + min(1.0, max(0.0, share)) * (self.high - self.low)

    def loss_at(self, share: float) -> float:
        """Return the loss that should be seen at a share, in percentage points."""
        low, high = math.log(max(self.low_pp, LEAST_PP)), math.log(max(self.high_pp, LEAST_PP))
        return math.exp(low + (share - self.low) / (self.high - self.low) * (high - low))


@dataclass(frozen=True)
class Line:
    """Recipes between a strong one and the same with every number at the other, gentle end of its range.

    Args:
        bound: the space.
        end: the strong recipe.
    """

    bound: BoundSpace
    end: Values

    @property
    def moving(self) -> list[Parameter]:
        """The numbers that change along it, those that take every value first."""
        numbers = [each for each in self.bound.parameters if each.kind != "choice" and each.name in self.end]
        there = [each for each in numbers if each.high > each.low]
        return sorted(there, key=lambda each: each.kind == "int" or each.every is not None)

    def at(self, share: float) -> Values:
        """Return the recipe at a share of the way: 0 for the gentle end, 1 for the strong one."""
        moved = {each.name: each.at(self._place(each, share)) for each in self.moving}
        return {**self.end, **moved}

    def where(self, values: Values) -> float | None:
        """Return where a recipe lies on the line, None where it does not."""
        first = self.moving[0]
        if first.name not in values:
            return None
        gentle, strong = self._place(first, 0.0), self._place(first, 1.0)
        share = (first.share_of(values[first.name]) - gentle) / (strong - gentle)
        return share if same(self.at(share), values) else None

    def _place(self, each: Parameter, share: float) -> float:
        strong = each.share_of(self.end[each.name])
        gentle = 0.0 if strong >= 0.5 else 1.0  # the farther end
        return gentle + share * (strong - gentle)

    def crossing(self, records: Sequence[Record], budget: Budget) -> Crossing | None:
        """Return between which of its recipes the limit is crossed; None where its end was not seen to miss it."""
        low, low_pp = 0.0, LEAST_PP
        missed: list[tuple[float, float]] = []
        for record in records:
            share, drop = self.where(dict(record.values)), record.figures.get("top1_drop_pp")
            if share is None or drop is None:
                continue
            if "top1_drop_pp" in budget.excess(record.figures) or record.state == "stopped":
                missed.append((share, drop))
            elif share > low:
                low, low_pp = share, drop
        above = [each for each in missed if each[0] > low]
        return Crossing(low, low_pp, *min(above)) if above else None


@dataclass(frozen=True)
class Lines:
    """What to try on the lines to several strong recipes, the most promising line first.

    Args:
        lines: to the strong recipes.
        budget: the limits.
        predict: tells what a recipe will cost; None where it cannot tell.
    """

    lines: tuple[Line, ...]
    budget: Budget
    predict: Predict

    @classmethod
    def to(cls, ends: Ends) -> Lines:
        """Return the lines to every end that has a number to change."""
        lines = [Line(ends.bound, end) for end in ends.every()]
        return cls(tuple(line for line in lines if line.moving), ends.budget, ends.predict)

    def __call__(self, records: Sequence[Record]) -> Iterator[Values]:
        """Yield the next recipe of each line: the cheapest of those that should keep the limit, then the nearest to it.

        Nothing is yielded of a line of which the end was not tried, or on which nothing better can be found.
        """
        best = _best_cost(records, self.budget)
        found = []
        for line in self.lines:
            crossing = line.crossing(records, self.budget)
            share = None if crossing is None else self._next(line, crossing, best)
            if share is not None and crossing is not None:
                values = line.at(share)
                loss = max(crossing.loss_at(share), self.budget.top1_drop_pp)
                found.append(((loss, self.predict(values) or 0.0), values))
        yield from (values for _, values in sorted(found, key=lambda each: each[0]))

    def _next(self, line: Line, crossing: Crossing, best: float | None) -> float | None:
        least = self._begins_to_save(line, crossing, best)
        room = crossing.high - least
        if room < CLOSE:
            return None
        return min(max(crossing.at(self.budget.top1_drop_pp), least + CLOSE / 2), crossing.high - CLOSE / 2)

    def _begins_to_save(self, line: Line, crossing: Crossing, best: float | None) -> float:
        """Return the share from which a line is cheaper than the best so far; costs fall along it."""
        low, high = crossing.low, crossing.high
        if best is None or self._saves(line, low, best):
            return low
        if not self._saves(line, high, best):
            return high
        for _ in range(PROBES):
            middle = (low + high) / 2
            low, high = (low, middle) if self._saves(line, middle, best) else (middle, high)
        return high

    def _saves(self, line: Line, share: float, best: float) -> bool:
        cost = self.predict(line.at(share))
        return cost is None or cost < best


def _record_of(values: Values, records: Sequence[Record]) -> Record | None:
    return next((record for record in records if same(dict(record.values), values)), None)


def _best_cost(records: Sequence[Record], budget: Budget) -> float | None:
    """Return what the cheapest recipe that keeps the limits should cost by its plan: plans are compared with plans."""
    figure = budget.figure
    kept = [record for record in records if record.keeps(budget) and record.figures.get(figure) is not None]
    if not kept:
        return None
    best = min(kept, key=lambda record: record.figures[figure] or 0.0)
    return best.predicted.get(figure, best.figures[figure])
