"""Which trials are stopped on part of the images: successive halving, and limits that are missed beyond doubt.

References:
    Jamieson, Talwalkar: Non-stochastic best arm identification (arXiv 1502.07943).
    Li et al.: A system for massively parallel hyperparameter tuning (arXiv 1810.05934).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pah_opt.search.front import Point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.search.budget import Budget
    from pah_opt.search.records import Record

ETA = 3
"""Each part of the images is so many times as large as the one before."""
SMALLEST = 48
"""Images of the smallest part."""
ENOUGH = 6
"""Earlier trials at a rung before any trial is halved away there."""
DOUBT = 2.0
"""Standard errors by which a limit must be missed before a trial is stopped for it."""


def rungs(images: int) -> tuple[int, ...]:
    """Return how many images each rung has, the last one all of them.

    >>> rungs(1000)
    (111, 333, 1000)
    """
    sizes = [images]
    while sizes[-1] // ETA >= SMALLEST:
        sizes.append(sizes[-1] // ETA)
    return tuple(reversed(sizes))


@dataclass(frozen=True)
class Rivals:
    """What earlier trials showed at each rung.

    Args:
        at: for each number of images, the cost and the drop of every trial that got there.
        lossless: cost of the cheapest trial that keeps every limit and loses nothing; None where there is none.
    """

    at: dict[int, tuple[Point, ...]]
    lossless: float | None = None

    @classmethod
    def of(cls, records: Sequence[Record], budget: Budget) -> Rivals:
        """Collect them.

        Args:
            records: earlier trials.
            budget: the limits, and what is minimised.
        """
        found: dict[int, list[Point]] = {}
        figure = budget.figure
        for record in records:
            cost = record.figures.get(figure)
            if cost is None or record.state == "repeated":
                continue
            for images, drop in record.rungs:
                found.setdefault(images, []).append(Point(cost, drop))
        costs = [record.figures.get(figure) for record in records if record.keeps(budget) and _loses_nothing(record)]
        lossless = min((cost for cost in costs if cost is not None), default=None)
        return cls({images: tuple(points) for images, points in found.items()}, lossless)

    def pointless(self, cost: float) -> str | None:
        """Return why a trial that costs at least so much cannot get on the front, or None."""
        if self.lossless is None or cost <= self.lossless:
            return None
        return f"costs at least {cost:,.6g}, and a trial that loses nothing costs {self.lossless:,.6g}"

    def outdone(self, images: int, point: Point) -> str | None:
        """Return why a trial is in the worse half at a rung, or None when it goes on.

        Trials are ranked by how many others beat them in both cost and drop, so that a cheap recipe that loses more
        and a dear one that loses less are no rivals. On the front nothing is ever stopped.
        """
        others = self.at.get(images, ())
        if len(others) < ENOUGH:
            return None
        beaten = sum(other.beats(point) for other in others)
        ranks = sorted(sum(rival.beats(other) for rival in others) for other in others)
        if beaten == 0 or beaten <= ranks[len(ranks) // 2]:
            return None
        return f"in the worse half after {images} images: {beaten} of {len(others)} earlier trials are better in both"


def _loses_nothing(record: Record) -> bool:
    drop = record.figures.get("top1_drop_pp")
    return drop is not None and drop <= 0.0


def standard_error_pp(flips: int, images: int) -> float:
    """Return the standard error of a drop of top-1, in percentage points: both models see the same images.

    Without a single flip it is that of one.

    >>> standard_error_pp(16, 400)
    1.0
    """
    return 100.0 * math.sqrt(max(flips, 1)) / images


def beyond_doubt(drop_pp: float, flips: int, images: int, limit_pp: float) -> str | None:
    """Return why a drop is above its limit even if chance was against it, or None.

    Args:
        drop_pp: on these images, in percentage points.
        flips: images to which the trial and the dense model answer differently as to right and wrong.
        images: how many there are.
        limit_pp: most that may be lost.
    """
    if drop_pp - DOUBT * standard_error_pp(flips, images) <= limit_pp:
        return None
    return f"loses {drop_pp:.1f} pp on {images} images, beyond the limit of {limit_pp:g} pp without doubt"
