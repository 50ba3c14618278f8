"""What a search tries before it has learnt anything: simple recipes, then a look at the space as a whole."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pah_opt.errors import RecipeError
from pah_opt.progress import Progress
from pah_opt.search.ends import Ends
from pah_opt.search.extremes import Extremes
from pah_opt.search.lines import Lines, gentle_numbers
from pah_opt.search.proposing import Survey, each_once
from pah_opt.search.scan import knapsack_starts
from pah_opt.search.starts import simple_starts, thorough_starts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pah_opt.search.bound import BoundSpace, Values
    from pah_opt.search.judge import Judge
    from pah_opt.search.settings import Settings
    from pah_opt.search.study import Study

SHARE = 0.1
"""Of the time of a search that looking for its cheapest recipe may take, and scanning per-layer choices too."""
PLANS = 24
"""Recipes that are planned to find a cheap one; the limits are checked with more."""


@dataclass
class Surveyor:
    """Looks at a space by plans and scans.

    Args:
        bound: the space.
        judge: predicts; the budget is its.
        study: remembers that a scan was made.
        settings: of the search.
        progress: shows what is done.
    """

    bound: BoundSpace
    judge: Judge
    study: Study
    settings: Settings
    progress: Progress = field(default_factory=Progress)

    def first(self) -> list[Values]:
        """Return what is tried first: simple recipes, but those that cannot be run or save nothing by their plans.

        Where the dense model itself misses a limit, what saves nothing of the figure that is minimised may still be
        the gentlest recipe that keeps it.
        """
        dense, budget = self.judge.dense, self.judge.budget
        most = None if budget.excess(dense) else dense.get(budget.figure)
        starts = simple_starts(self.bound)
        costs = [self.cost(values) for values in starts]
        fit = [values for values, cost in zip(starts, costs, strict=True) if cost is None or cost < (most or math.inf)]
        return fit or starts

    def cost(self, values: Values) -> float | None:
        """Predict what a recipe will cost: None where that is not known, infinite where it cannot be run."""
        return self._figure(values, self.judge.budget.figure)

    def weigh(self, values: Values) -> float | None:
        """Predict how many bytes a recipe's file will have, in the same way."""
        return self._figure(values, "artifact_bytes")

    def _figure(self, values: Values, figure: str) -> float | None:
        recipe = self.bound.recipe(values, "predicted")
        if recipe is None or not self.settings.screening:
            return None
        try:
            return self.judge.predict(recipe).get(figure)
        except RecipeError:
            return math.inf

    def look(self) -> Survey:
        """Look for the cheapest recipe by its plan; it, and the way back from it, are tried before the scan."""
        self.progress.message("looking for the cheapest recipe")
        until = time.perf_counter() + self._looking_s
        extremes = Extremes(self.bound, self.judge, by_place=False, most_plans=PLANS, until=until)
        figure = self.judge.budget.figure
        least = extremes.least(figure)
        scanned, late = each_once(self._scanned()), thorough_starts(self.bound)
        if least is None:
            return Survey({}, [scanned], late)
        ends = Ends(self.bound, self.judge.budget, least[1], self.cost)
        lines = Lines.to(ends, gentle_numbers(self.bound, least[1], self.weigh))
        return Survey(extremes.decisive(least, figure), [ends, lines, scanned], late)

    def _scanned(self) -> Iterator[Values]:
        if self.study.scanned:
            return
        self.progress.message("scanning per-layer choices")
        yield from knapsack_starts(self.bound, self.judge, self._looking_s)
        self.study.keep_scanned()

    @property
    def _looking_s(self) -> float:
        """Seconds for a look at the whole space: a share of the search, by the pace so far where it has no end."""
        seconds = [record.seconds for record in self.study.records if record.judged]
        pace = sum(seconds) / len(seconds) if seconds else float("inf")
        return SHARE * min(self.settings.limit_s, self.settings.trials * pace)
