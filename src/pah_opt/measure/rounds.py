"""Models take turns, so that a ratio survives a machine whose speed drifts."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pah_opt.measure.statistics import Interval, median_interval

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

PAIRS_LEVEL = 0.99
"""Level at which intervals of ratios are computed. Rounds end when the interval is narrow, and looking again and again
makes a 95 % interval cover the truth in 92 % of cases only; one computed at 99 % covers it in 98 % (simulated in the
tests), so what is reported as a 95 % interval is one."""


@dataclass(frozen=True)
class PairRatio:
    """The ratio of two models' figures over rounds.

    Args:
        value: median of the rounds' ratios.
        interval: where that median lies with 95 % confidence; None with fewer than 8 rounds.
        rounds: how many there were.
    """

    value: float
    interval: Interval | None
    rounds: int

    @property
    def relative_width(self) -> float:
        """Width of the interval as a share of the value; infinite without one."""
        return self.interval.width / self.value if self.interval is not None else float("inf")


def pair_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> PairRatio:
    """Return the median of the ratios of values that were measured in the same round."""
    ratios = [above / below for above, below in zip(numerators, denominators, strict=True)]
    return PairRatio(statistics.median(ratios), median_interval(ratios, PAIRS_LEVEL), len(ratios))


def take_turns(
    runs: Mapping[K, Callable[[], T]],
    enough: Callable[[Sequence[Mapping[K, T]]], bool],
    *,
    at_least: int,
    at_most: int,
    wanted: int | None = None,
    limit_s: float = float("inf"),
    seed: int = 0,
) -> list[dict[K, T]]:
    """Let every run have one turn a round until there is enough.

    The order changes from round to round and every second round reverses it, so that neither a drift nor what the
    neighbour leaves in the caches favours anyone.

    Args:
        runs: what is run in a turn, by name.
        enough: looks at the rounds so far and tells whether to stop.
        at_least: rounds before anything may stop.
        at_most: rounds after which to stop in any case.
        wanted: rounds before ``enough`` is asked; ``at_least`` by default.
        limit_s: seconds after which to stop, once ``at_least`` rounds are done.
        seed: seeds the order.

    Returns:
        What each run returned, round by round.
    """
    done: list[dict[K, T]] = []
    started = time.perf_counter()
    orders = _orders(list(runs), seed)
    while True:
        done.append({name: runs[name]() for name in next(orders)})
        over = time.perf_counter() - started >= limit_s or len(done) >= at_most
        if len(done) >= at_least and (over or (len(done) >= (wanted or at_least) and enough(done))):
            return done


def _orders(names: list[K], seed: int) -> Iterator[list[K]]:
    generator = random.Random(seed)
    while True:
        generator.shuffle(names)
        yield list(names)
        yield names[::-1]
