"""From timed passes to figures; the timing itself is :mod:`pah_opt.measure.timer`'s."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from pah_opt.measure.schema import Latency
from pah_opt.measure.statistics import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.measure.settings import MeasureSettings
    from pah_opt.measure.timer import Block
    from pah_opt.measure.warmup import WarmUp

PLOTTED = 500
"""Samples kept for plots."""
NEEDED = {"p90_ms": 100, "p95_ms": 200, "p99_ms": 1000}
"""Samples a percentile needs, so that ten of them lie above it."""


def passes_in_a_block(typical_ms: float, settings: MeasureSettings) -> int:
    """Return how many timed passes one turn of a model consists of."""
    return max(1, min(1000, round(settings.block_ms / max(typical_ms, 1e-3))))


def latency_figures(blocks: Sequence[Block], method: str, warm: WarmUp) -> Latency:
    """Summarise the timed passes of one model at one batch size.

    Args:
        blocks: what was timed, at least one pass.
        method: what ``device_ms`` are.
        warm: what warming up showed.
    """
    samples = np.array([value for block in blocks for value in block.device_ms])
    wall = [value for block in blocks for value in block.wall_ms]
    tails = {name: percentile(samples, float(name[1:3]), least) for name, least in NEEDED.items()}
    reasons = {
        name: f"needs {least:,} samples; {samples.size:,} were taken within the limits"
        for name, least in NEEDED.items()
    }
    reasons["compile_s"] = "the first call compiled nothing"
    reasons["std_ms"] = "needs two samples"
    quarter, three_quarters = np.percentile(samples, [25, 75])
    known: dict[str, Any] = {
        "mean_ms": float(samples.mean()), "min_ms": float(samples.min()), "max_ms": float(samples.max()),
        "std_ms": float(samples.std(ddof=1)) if samples.size > 1 else None, "p50_ms": float(np.median(samples)),
        "iqr_ms": float(three_quarters - quarter), "n": samples.size, "method": method, **tails,
        "wall_p50_ms": statistics.median(wall), "compile_s": warm.compile_s, "first_call_ms": warm.first_call_ms,
        "samples_ms": _thinned(samples),
    }  # fmt: skip
    return Latency.having(None, reasons, **known)


def _thinned(samples: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, ...]:
    kept = samples if samples.size <= PLOTTED else samples[np.linspace(0, samples.size - 1, PLOTTED).astype(int)]
    return tuple(float(f"{value:.5g}") for value in kept)
