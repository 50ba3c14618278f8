"""Run a model until its times have settled; the first call, which may compile, is reported apart."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pah_opt.measure.settings import MeasureSettings
    from pah_opt.measure.timer import Call, Timer

WINDOW = 5
"""Passes over which a median is taken."""
SETTLED = 0.05
"""Warm-up ends when two medians in a row differ by less than this share."""


@dataclass(frozen=True)
class WarmUp:
    """What warming up showed.

    Args:
        first_call_ms: wall time of the very first call.
        compiled: whether ``torch.compile`` built graphs during it.
        iterations: calls made.
        typical_ms: median wall time of the last calls.
        settled: whether times had stopped drifting.
    """

    first_call_ms: float
    compiled: bool
    iterations: int
    typical_ms: float
    settled: bool

    @property
    def compile_s(self) -> float | None:
        """Seconds the first call spent compiling; None when it compiled nothing."""
        return max(0.0, self.first_call_ms - self.typical_ms) / 1e3 if self.compiled else None


def warm_up(call: Call, timer: Timer, settings: MeasureSettings) -> WarmUp:
    """Call until enough calls were made, enough time has passed, and the times no longer drift."""
    graphs = compiled_graphs()
    (first,) = timer.wall_ms(call)
    compiled = compiled_graphs() > graphs
    times: list[float] = []
    started = time.perf_counter()
    while True:
        times += timer.wall_ms(call)
        seconds = time.perf_counter() - started
        enough = len(times) + 1 >= settings.warmup_iters and seconds >= settings.warmup_s
        settled = _settled(times)
        if (enough and settled) or seconds >= settings.warmup_limit_s:
            return WarmUp(first, compiled, len(times) + 1, statistics.median(times[-WINDOW:]), settled)


def _settled(times: list[float]) -> bool:
    if len(times) < 2 * WINDOW:
        # A slow model would warm up for minutes; two passes that agree say as much as ten of a fast one.
        return len(times) >= 2 and abs(times[-1] / times[-2] - 1.0) < SETTLED
    last, before = statistics.median(times[-WINDOW:]), statistics.median(times[-2 * WINDOW : -WINDOW])
    return abs(last / before - 1.0) < SETTLED


def compiled_graphs() -> int:
    """Return how many graphs ``torch.compile`` has built in this process so far."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo is not None else 0
