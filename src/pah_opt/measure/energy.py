"""Energy of a forward pass, from the GPU's own counter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pah_opt.measure.nvml import Gpu, Reading
from pah_opt.measure.sampling import Sampler, Samples
from pah_opt.measure.schema import Energy
from pah_opt.measure.throughput import run_for

if TYPE_CHECKING:
    from pah_opt.measure.settings import MeasureSettings
    from pah_opt.measure.timer import Call, Timer

WINDOW_S = 10.0
"""The counter is updated every 20 to 100 ms; over this long its steps do not matter."""


def measure_energy(
    call: Call, batch_size: int, timer: Timer, gpu: Gpu, settings: MeasureSettings
) -> tuple[Energy, Samples]:
    """Run ``call`` back to back and read the energy it took.

    Idle power is measured before and reported, not subtracted: a server pays for it too.

    Args:
        call: one forward pass, warmed up.
        batch_size: images in it.
        timer: synchronises the device.
        gpu: the device.
        settings: how long.

    Returns:
        The energy figures, and what was sampled during the loop.
    """
    idle = _idle_power(gpu, settings.idle_s)
    with Sampler(gpu) as samples:
        before = gpu.energy_mj()
        passes, seconds = run_for(call, timer, settings.energy_s)
        after = gpu.energy_mj()
    counted = _counted(before, after)
    integrated = samples.energy_j()
    energy = counted if counted.value is not None else integrated
    if energy.value is None:
        reason = f"{counted.reason}; {integrated.reason}"
        return Energy.having(reason, duration_s=seconds, idle_power_w=idle.value), samples
    source = "nvml_total_energy" if counted.value is not None else "nvml_power_integrated"
    return _figures(energy.value, source, passes * batch_size, seconds, idle), samples


def _figures(joules: float, source: str, images: int, seconds: float, idle: Reading[float]) -> Energy:
    return Energy.having(
        reasons={"idle_power_w": idle.reason},
        gpu_energy_j=joules, j_per_image=joules / images, images_per_j=images / joules, mean_power_w=joules / seconds,
        idle_power_w=idle.value, duration_s=seconds, source=source, window_ok=seconds >= WINDOW_S,
    )  # fmt: skip


def _counted(before: Reading[int], after: Reading[int]) -> Reading[float]:
    if before.value is None or after.value is None:
        return Reading(None, before.reason or after.reason)
    if after.value <= before.value:
        return Reading(None, "the energy counter did not move: the loop was shorter than its period")
    return Reading((after.value - before.value) / 1e3)


def _idle_power(gpu: Gpu, seconds: float) -> Reading[float]:
    if seconds <= 0:
        return Reading(None, "not measured: idle_s is 0")
    with Sampler(gpu) as samples:
        time.sleep(seconds)
    return samples.mean("power_w")
