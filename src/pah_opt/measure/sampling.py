"""Watch a GPU from a thread while something runs."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pah_opt.measure.nvml import Gpu, Reading

if TYPE_CHECKING:
    from types import TracebackType

PERIOD_S = 0.1
"""Time between samples; NVML's own averages cover about as long."""


@dataclass
class Samples:
    """What was seen.

    Attributes:
        moments: seconds at which ``power_w`` was read.
        power_w, gpu_pct, mem_pct, sm_clock_mhz: what was read, one value a sample.
        throttles: how often each throttle reason was seen.
        reasons: why a series is empty, by its name.
    """

    moments: list[float] = field(default_factory=list)
    power_w: list[float] = field(default_factory=list)
    gpu_pct: list[float] = field(default_factory=list)
    mem_pct: list[float] = field(default_factory=list)
    sm_clock_mhz: list[float] = field(default_factory=list)
    throttles: Counter[str] = field(default_factory=Counter)
    count: int = 0
    reasons: dict[str, str] = field(default_factory=dict)

    def mean(self, series: str) -> Reading[float]:
        """Return the mean of a series, or why there is none."""
        values: list[float] = getattr(self, series)
        return Reading(statistics.fmean(values)) if values else Reading(None, self.reasons.get(series, "no sample"))

    @property
    def period_ms(self) -> float | None:
        """Mean time between samples; None with fewer than two."""
        gaps = len(self.moments) - 1
        return (self.moments[-1] - self.moments[0]) / gaps * 1e3 if gaps > 0 else None

    def energy_j(self) -> Reading[float]:
        """Return the integral of power over time (trapezoids), or why there is none."""
        if len(self.power_w) < 2:
            return Reading(None, self.reasons.get("power_w", "fewer than two power samples"))
        steps = zip(self.moments, self.moments[1:], self.power_w, self.power_w[1:], strict=False)
        return Reading(sum((later - earlier) * (one + two) / 2 for earlier, later, one, two in steps))


class Sampler:
    """Samples a GPU in the background for as long as the ``with`` block lasts.

    Args:
        gpu: the device.
        period_s: time between samples.
    """

    def __init__(self, gpu: Gpu, period_s: float = PERIOD_S) -> None:
        self.period_s = period_s
        self.samples = Samples()
        self._gpu = gpu
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)

    def __enter__(self) -> Samples:
        """Start sampling; the samples fill up meanwhile."""
        self._thread.start()
        return self.samples

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take a last sample and stop."""
        self._stop.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._sample()
            self._stop.wait(self.period_s)

    def _sample(self) -> None:
        samples = self.samples
        samples.count += 1
        if self._keep("power_w", power := self._gpu.power_w()):
            samples.power_w.append(power.value or 0.0)
            samples.moments.append(time.perf_counter())
        if self._keep("sm_clock_mhz", clock := self._gpu.sm_clock_mhz()):
            samples.sm_clock_mhz.append(clock.value or 0)
        rates = self._gpu.utilization_pct()
        if rates.value is not None:
            samples.gpu_pct.append(rates.value[0])
            samples.mem_pct.append(rates.value[1])
        else:
            samples.reasons.update(gpu_pct=rates.reason, mem_pct=rates.reason)
        throttles = self._gpu.throttle_reasons()
        samples.throttles.update(throttles.value or ())

    def _keep(self, series: str, reading: Reading[Any]) -> bool:
        if reading.value is None:
            self.samples.reasons[series] = reading.reason
        return reading.value is not None
