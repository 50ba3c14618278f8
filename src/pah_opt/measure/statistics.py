"""The few statistics that measuring needs, each with its assumptions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

LEVEL = 0.95
"""Confidence of every interval in a report."""


class Interval(NamedTuple):
    """A confidence interval, both ends included."""

    low: float
    high: float

    def covers(self, value: float) -> bool:
        """Tell whether ``value`` lies inside."""
        return self.low <= value <= self.high

    @property
    def width(self) -> float:
        """Distance between the ends."""
        return self.high - self.low


def binomial_tail(successes: int, trials: int, probability: float) -> float:
    """Return the probability of at least ``successes`` in ``trials`` independent trials, exactly.

    >>> binomial_tail(1, 2, 0.5)
    0.75
    """
    if successes <= 0 or probability >= 1.0:
        return 1.0
    if probability <= 0.0 or successes > trials:
        return 0.0
    first = math.lgamma(trials + 1)
    log_p, log_q = math.log(probability), math.log1p(-probability)
    terms = (
        first - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log_p + (trials - k) * log_q
        for k in range(successes, trials + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def sign_test_p(successes: int, trials: int) -> float:
    """Return the two-sided p-value of ``successes`` in ``trials`` fair coin tosses, exactly (1.0 for no trials)."""
    if trials == 0:
        return 1.0
    fewer = min(successes, trials - successes)
    return min(1.0, 2.0 * binomial_tail(trials - fewer, trials, 0.5))


def median_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Return a confidence interval for the median that holds for any distribution, or None for too few values.

    Its ends are order statistics, chosen by the sign test. The bootstrap of a median is too narrow for the few dozen
    pairs that a timing consists of; this interval is never too narrow for independent values, at any number of them.
    At 95 % it needs 6 values.

    >>> median_interval([1, 2, 3, 4, 5, 6])
    Interval(low=1.0, high=6.0)
    >>> median_interval([1, 2, 3]) is None
    True
    """
    ordered = sorted(values)
    count = len(ordered)
    rank = -1
    while sign_test_p(rank + 1, count) <= 1.0 - level:
        rank += 1
    return None if rank < 0 else Interval(float(ordered[rank]), float(ordered[count - 1 - rank]))


def percentile(samples: ArrayLike, percent: float, at_least: int) -> float | None:
    """Return a percentile, or None with fewer than ``at_least`` samples: a tail cannot be seen in a few values."""
    values = np.asarray(samples, dtype=float)
    return None if values.size < at_least else float(np.percentile(values, percent))
