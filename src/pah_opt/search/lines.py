"""How much of what a strong recipe saves can be kept: a few trials on the line from it back to what is gentle.

The loss of pruning and quantization grows about exponentially with their strength, so two points of a line tell where
it should cross the limit of accuracy. No trial is spent where a plan says that nothing is saved against the best so
far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from pah_opt.search.bound import same
from pah_opt.search.ends import best_cost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pah_opt.search.bound import BoundSpace, Values
    from pah_opt.search.budget import Budget
    from pah_opt.search.ends import Ends, Predict
    from pah_opt.search.parameters import Parameter, Value
    from pah_opt.search.records import Record

LEAST_PP = 0.1
"""A loss below this counts as this: that of the gentle end of a line, too."""
CLOSE = 1 / 16
"""Share of a line that is not halved any further."""
PROBES = 5
"""Halvings to find where a line begins to save."""


class Crossing(NamedTuple):
    """Where the limit may lie on a line.

    Args:
        low: the largest share that is known to keep the limit, 0 where none is.
        low_pp: top-1 lost there, in percentage points.
        high: the least share above it that is known to miss it.
        high_pp: top-1 lost there; with a confidence, a miss may lose less than the limit.
    """

    low: float
    low_pp: float
    high: float
    high_pp: float

    def at(self, limit_pp: float, least: float = 0.0) -> float:
        """Return the share at which the loss should be that of the limit; half way where the losses do not tell.

        Args:
            limit_pp: the limit, in percentage points.
            least: nothing below this share is wanted.
        """
        if not LEAST_PP < limit_pp < self.high_pp:
            return (max(self.low, least) + self.high) / 2
        low, high, wanted = (math.log(max(loss, LEAST_PP)) for loss in (self.low_pp, self.high_pp, limit_pp))
        share = (wanted - low) / (high - low) if high > low else 0.5
        return self.low + min(1.0, max(0.0, share)) * (self.high - self.low)

    def loss_at(self, share: float) -> float:
        """Return the loss that should be seen at a share, in percentage points."""
        low, high = math.log(max(self.low_pp, LEAST_PP)), math.log(max(self.high_pp, LEAST_PP))
        return math.exp(low + (share - self.low) / (self.high - self.low) * (high - low))


@dataclass(frozen=True)
class Line:
    """Recipes between a strong one and the same with its numbers at the gentle ends of their ranges.

    Args:
        bound: the space.
        end: the strong recipe.
        gentle: numbers at the other end; the farther end of its range for one that is not named.
    """

    bound: BoundSpace
    end: Values
    gentle: Values = field(default_factory=dict)

    @cached_property
    def moving(self) -> tuple[Parameter, ...]:
        """The numbers that change along it, the finest first."""
        numbers = [each for each in self.bound.parameters if each.kind != "choice" and each.name in self.end]
        there = [each for each in numbers if not math.isclose(self._place(each, 0.0), self._place(each, 1.0))]
        return tuple(sorted(there, key=lambda each: each.size, reverse=True))

    @cached_property
    def _still(self) -> Values:
        moving = {each.name for each in self.moving}
        return {name: value for name, value in self.end.items() if name not in moving}

    def at(self, share: float) -> Values:
        """Return the recipe at a share of the way: 0 for the gentle end, 1 for the strong one."""
        first = self.moving[0]
        # What the finest number is rounded to decides for all, or else `where` would find another share again.
        share = self._share(first, first.at(self._place(first, share)))
        return {**self.end, **{each.name: each.at(self._place(each, share)) for each in self.moving}}

    def where(self, values: Values) -> float | None:
        """Return where a recipe lies on the line, None where it does not."""
        first = self.moving[0]
        if first.name not in values or not same({name: values.get(name, "") for name in self._still}, self._still):
            return None
        share = self._share(first, values[first.name])
        return share if same(self.at(share), values) else None

    def _share(self, each: Parameter, value: Value) -> float:
        gentle, strong = self._place(each, 0.0), self._place(each, 1.0)
        return (each.share_of(value) - gentle) / (strong - gentle)

    def _place(self, each: Parameter, share: float) -> float:
        strong = each.share_of(self.end[each.name])
        known = self.gentle.get(each.name)
        gentle = float(strong < 0.5) if known is None else each.share_of(known)  # the farther end
        return gentle + share * (strong - gentle)

    def crossing(self, records: Sequence[Record], budget: Budget) -> Crossing | None:
        """Return between which of its recipes the limit is crossed; None where none was seen to miss it."""
        low, low_pp = 0.0, LEAST_PP
        missed: list[tuple[float, float]] = []
        for record in records:
            drop = record.figures.get("top1_drop_pp")
            share = None if drop is None else self.where(dict(record.values))
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
        predict: tells what a recipe will cost; None where it cannot tell, infinite where it cannot be run.
    """

    lines: tuple[Line, ...]
    budget: Budget
    predict: Predict

    @classmethod
    def to(cls, ends: Ends, gentle: Values) -> Lines:
        """Return the lines to every end that has a number to change.

        Args:
            ends: the strong recipes.
            gentle: see :func:`gentle_numbers`.
        """
        lines = [Line(ends.bound, end, gentle) for end in ends.every()]
        return cls(tuple(line for line in lines if line.moving), ends.budget, ends.predict)

    def __call__(self, records: Sequence[Record]) -> Iterator[Values]:
        """Yield the next recipe of each line: the cheapest of those that should keep the limit, then the nearest to it.

        Nothing is yielded of a line on which nothing missed the limit yet, or on which nothing better can be found.
        """
        best, limit = best_cost(records, self.budget), self.budget.top1_drop_pp
        found = []
        for line in self.lines:
            crossing = line.crossing(records, self.budget)
            share = None if crossing is None else self._next(line, crossing, best)
            if share is not None and crossing is not None:
                values = line.at(share)
                cost = self.predict(values)
                over = max(0.0, round(crossing.loss_at(share) - limit, 3))
                if cost != math.inf:  # or else it cannot be run
                    found.append(((over, cost or 0.0), values))
        yield from (values for _, values in sorted(found, key=lambda each: each[0]))

    def _next(self, line: Line, crossing: Crossing, best: float | None) -> float | None:
        least = self._begins_to_save(line, crossing, best)
        if crossing.high - least < CLOSE:
            return None
        wanted = crossing.at(self.budget.top1_drop_pp, least)
        return min(max(wanted, least + CLOSE / 2), crossing.high - CLOSE / 2)

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


def gentle_numbers(bound: BoundSpace, strong: Values, weigh: Predict) -> Values:
    """Return the numbers of a recipe at their gentle ends: those that leave the larger file, so change the model less.

    One that changes no byte keeps its value: which way it is gentle is not known. Where nothing can be weighed, none is
    returned.

    Args:
        bound: the space.
        strong: a recipe.
        weigh: predicts the bytes of a recipe's file; None where it cannot.
    """
    gentle: Values = {}
    for places in bound.groups().values():
        there = [each for each in places if each.kind != "choice" and each.name in strong]
        sizes = [weigh({**strong, **{each.name: each.at(share) for each in there}}) for share in (0.0, 0.5, 1.0)]
        if there and None not in sizes:
            made = [size for size in sizes if size is not None and size < math.inf]  # an end may be refused
            low, high = (made[0], made[-1]) if made else (0.0, 0.0)
            gentle |= {each.name: strong[each.name] if low == high else each.at(float(high > low)) for each in there}
    return gentle
