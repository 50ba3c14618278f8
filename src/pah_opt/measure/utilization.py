"""How busy the device was, and what share of its matrix rate a model reaches."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch

from pah_opt.measure.schema import Utilization
from pah_opt.measure.timer import timer_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from pah_opt.measure.nvml import Reading
    from pah_opt.measure.sampling import Samples

SIZES = {"cuda": 8192, "cpu": 1536}
"""Rows and columns of the square matrices whose product gives the device's rate."""
LONGEST_S = 1.0
"""A product that would take longer is made of smaller matrices: where a type is emulated (bfloat16 on a CPU with AVX2
alone), one of the usual size takes seven seconds."""
FASTER = (
    "the model computes at {share:.0f} % of the rate of {dtype} products: it multiplies in another type, or something "
    "else used the device while the rate was measured"
)
"""Why there is no share where it would be above one."""


def matrix_rate(device: torch.device, dtype: torch.dtype, *, seconds: float, size: int | None = None) -> float:
    """Measure the rate of dense matrix products on a device, in FLOP/s.

    Args:
        device: where.
        dtype: a floating-point type.
        seconds: how long to measure.
        size: rows and columns of the matrices.

    Returns:
        The median rate of single products. Inputs are random: with zeros the chip draws less power and clocks higher.
    """
    timer = timer_for(device)
    size = size or _quick_enough(SIZES.get(device.type, 2048), device, dtype)
    product = _product(size, device, dtype)
    timer.time(product, 3)
    times: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        times += timer.time(product, 10).device_ms if device.type == "cuda" else timer.wall_ms(product)
    return 2.0 * size**3 / (statistics.median(times) / 1e3)


def _product(size: int, device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)

    def product() -> None:
        torch.mm(left, right, out=out)

    return product


def _quick_enough(size: int, device: torch.device, dtype: torch.dtype) -> int:
    """Return a size, at most the given one, whose product takes no longer than :data:`LONGEST_S`."""
    times = timer_for(device).wall_ms(_product(size // 4, device, dtype), 3)  # the first one may set things up
    seconds = 4**3 * min(times) / 1e3
    while seconds > LONGEST_S and size > 64:
        size, seconds = size // 2, seconds / 2**3
    return size


def utilization(
    flops: int | None, images_per_s: float | None, rate: tuple[float, torch.dtype] | None, samples: Reading[Samples]
) -> Utilization:
    """Put together what was sampled and counted.

    Args:
        flops: of one image.
        images_per_s: throughput.
        rate: the device's matrix rate in FLOP/s and the type it was measured in.
        samples: what was sampled while the model ran, or why nothing was.
    """
    known: dict[str, object] = {}
    reasons: dict[str, str] = {}
    if rate is not None:
        known |= {"matrix_tflops": rate[0] / 1e12, "matrix_dtype": str(rate[1]).removeprefix("torch.")}
    if rate is not None and flops is not None and images_per_s is not None:
        share = 100.0 * flops * images_per_s / rate[0]
        if share <= 100.0:
            known["mfu_pct"] = share
        else:
            reasons["mfu_pct"] = FASTER.format(dtype=rate[1], share=share)
    else:
        reasons["mfu_pct"] = "needs the throughput, the model's FLOPs and the device's matrix rate"
    if samples.value is not None:
        known |= _sampled(samples.value, reasons)
    return Utilization.having(samples.reason or "not measured", reasons, **known)


def _sampled(samples: Samples, reasons: dict[str, str]) -> dict[str, object]:
    busy, memory = samples.mean("gpu_pct"), samples.mean("mem_pct")
    reasons |= {"gpu_pct_mean": busy.reason, "mem_pct_mean": memory.reason}
    return {
        "gpu_pct_mean": busy.value, "mem_pct_mean": memory.value,
        "samples": samples.count, "period_ms": samples.period_ms,
    }  # fmt: skip
