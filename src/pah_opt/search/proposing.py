"""What is tried next: starting points, then the sampler, neighbours of the front and late starts in turns."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pah_opt.search.front import Point, front

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.search.bound import BoundSpace, Values
    from pah_opt.search.budget import Budget
    from pah_opt.search.records import Record

Source = Callable[["Sequence[Record]"], Iterable["Values"]]
"""Yields what may be tried next, the best first, by what every trial so far showed; tried ones too."""
ORDINARY = 4
"""Judged trials before neighbours of the front are tried."""
TRIES = 20
"""Neighbours that are looked at for one that was not tried yet."""
CANDIDATES = 4
"""Neighbours whose cost is predicted, to try one that should be cheaper."""
LATE = 4
"""Every so many trials one of the late starts is tried."""
TOWARDS = 0.5
"""Share of the neighbours that lie on the way to the cheapest recipe of the space."""


@dataclass(frozen=True)
class Survey:
    """What a look at the whole space gives.

    Args:
        cheap: values that make recipes cheap; none where plans cannot tell.
        sources: what to try next: of the first one first, while it has something new.
        late: starts that take turns with neighbours and the sampler.
    """

    cheap: Values
    sources: Sequence[Source] = ()
    late: Iterable[Values] = ()


def each_once(found: Iterable[Values]) -> Source:
    """Return a source that yields these, one after the other, whatever the trials show; worked out as it is asked."""
    left = iter(found)
    return lambda _: left


@dataclass
class Proposer:
    """Chooses what to try.

    Args:
        bound: the space.
        budget: the limits.
        seed: of every choice.
        starts: what to try first.
        survey: looks at the space as a whole; asked once, after the first starts were tried, because it takes a while.
        neighbours: whether neighbours of the front are tried in turn with the sampler's proposals.
        predict: tells what a choice will cost, without running it; None where it cannot tell.
    """

    bound: BoundSpace
    budget: Budget
    seed: int = 0
    starts: Iterable[Values] = ()
    survey: Callable[[], Survey] | None = None
    neighbours: bool = True
    predict: Callable[[Values], float | None] = lambda _: None
    tried: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Seed the choices."""
        self._generator = random.Random(self.seed)
        self._cheap: Values = {}
        self._sources: list[Source] = [each_once(self.starts)]
        self._late: Source = each_once(())

    def next(self, records: Sequence[Record], *, repeats: int = 0) -> tuple[Values | None, str]:
        """Return what to try, or None for what the sampler proposes; and where it comes from.

        Args:
            records: every trial so far.
            repeats: how many proposals in a row were recipes that had been tried.
        """
        start = self._next_start(records)
        if start is not None:
            return start, "start"
        if repeats > 1:
            return self._fresh(lambda: self.bound.at_random(self._generator)), "random"
        late = self._first_new(self._late, records) if len(records) % LATE == 0 else None
        if late is not None:
            return late, "start"
        best = best_of(records, self.budget)
        if self.neighbours and len(best) > 0 and len(records) % 2 and _judged(records) >= ORDINARY:
            return self._neighbour(best), "neighbour"
        return None, "sampler"

    def _neighbour(self, best: Sequence[Record]) -> Values:
        """Return a neighbour of the front; half of the time one from its cheapest towards what is cheaper."""
        if self._cheap and self._generator.random() < TOWARDS:
            return self._fresh(self._towards(dict(best[0].values), self._cheap))
        return self._cheaper(self._generator.choice(best))

    def _towards(self, base: Values, goal: Values) -> Callable[[], Values]:
        return lambda: self.bound.between(base, goal, self._generator.uniform(0.2, 0.8), self._generator)

    def _cheaper(self, base: Record) -> Values:
        """Return the first of a few neighbours that is predicted to cost less; any where none is."""
        values, limit = dict(base.values), point_of(base, self.budget).cost
        found: list[Values] = []
        for _ in range(CANDIDATES):
            found.append(self._fresh(lambda: self.bound.neighbour(values, self._generator)))
            cost = self.predict(found[-1])
            if cost is None or cost < limit:
                return found[-1]
        return found[0]

    def _next_start(self, records: Sequence[Record]) -> Values | None:
        for source in self._sources:
            values = self._first_new(source, records)
            if values is not None:
                return values
        if self.survey is None:
            return None
        found, self.survey = self.survey(), None
        self._sources, self._cheap, self._late = list(found.sources), found.cheap, each_once(found.late)
        return self._next_start(records)

    def _first_new(self, source: Source, records: Sequence[Record]) -> Values | None:
        return next((values for values in source(records) if not self._known(values)), None)

    def _fresh(self, make: Callable[[], Values]) -> Values:
        values: Values = {}
        for _ in range(TRIES):
            values = make()
            if not self._known(values):
                break
        return values

    def _known(self, values: Values) -> bool:
        recipe = self.bound.recipe(values, "tried")
        return recipe is None or recipe.sha256 in self.tried

    def is_new(self, values: Values) -> bool:
        """Tell whether a recipe was not tried yet; from now on it was."""
        recipe = self.bound.recipe(values, "tried")
        key = "dense" if recipe is None else recipe.sha256
        new = key not in self.tried
        self.tried.add(key)
        return new


def _judged(records: Sequence[Record]) -> int:
    return sum(record.judged for record in records)


def best_of(records: Sequence[Record], budget: Budget) -> list[Record]:
    """Return the front: judged trials that keep every limit and that none beats in both cost and drop, cheapest first.

    Where no trial keeps the limits, the front of all that were judged, so that there is something to go on from.
    """
    judged = [record for record in records if record.judged and record.figures.get(budget.figure) is not None]
    kept = [record for record in judged if record.keeps(budget)] or judged
    return [kept[index] for index in front([point_of(record, budget) for record in kept])]


def point_of(record: Record, budget: Budget) -> Point:
    """Return the two figures of a judged trial."""
    return Point(float(record.figures[budget.figure] or 0.0), float(record.figures["top1_drop_pp"] or 0.0))
