"""Measuring on a real CUDA device: events, memory, NVML, the whole protocol."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import benchmark

from pah_opt.measure.nvml import open_gpu
from pah_opt.measure.settings import MeasureSettings
from pah_opt.measure.timer import CudaTimer
from pah_opt.measure.utilization import matrix_rate
from pah_opt.report import Report, compare

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device can be used here"),
]
CUDA = torch.device("cuda", 0)


def vit(**changes: Any) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    shape = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "num_hidden_layers": 6}
    return ViTForImageClassification(ViTConfig(**{**shape, **changes})).eval().to(CUDA)


def test_a_kernel_of_known_length_is_timed_right() -> None:
    """The device spins for a number of its own clock cycles."""
    cycles = 10_000_000
    block = CudaTimer(CUDA).time(lambda: torch.cuda._sleep(cycles), 10)
    rate = cycles / (min(block.device_ms) * 1e-3)
    assert 0.8e9 < rate < 2.6e9
    assert min(block.wall_ms) >= 0.9 * min(block.device_ms)


def test_the_timer_agrees_with_torchs_own() -> None:
    left, right = (torch.randn(4096, 4096, device=CUDA, dtype=torch.bfloat16) for _ in range(2))
    ours = CudaTimer(CUDA)
    ours.time(lambda: left @ right, 20)
    theirs = benchmark.Timer("left @ right", globals={"left": left, "right": right}).blocked_autorange(min_run_time=1.0)
    assert min(ours.time(lambda: left @ right, 50).device_ms) == pytest.approx(theirs.median * 1e3, rel=0.1)


def test_the_matrix_rate_of_bf16_beats_that_of_fp32() -> None:
    assert matrix_rate(CUDA, torch.bfloat16, seconds=0.3) > 2 * matrix_rate(CUDA, torch.float32, seconds=0.3)


@pytest.fixture(scope="module")
def report() -> Report:
    models = {"fp32": vit(), "bf16": vit().bfloat16()}
    settings = MeasureSettings.quick(batch_sizes=(1, 64), energy_s=3.0, idle_s=0.5)
    return compare(models, settings=settings, weights_origin="random")


def test_device_figures_are_there(report: Report) -> None:
    for model in report.models:
        large = model.timings[-1]
        assert large.latency.method == "cuda_event"
        assert large.latency.p50_ms is not None
        assert model.memory.peak_allocated_bytes > model.memory.weights_bytes
        assert large.utilization.mfu_pct is not None
        assert 0 < large.utilization.mfu_pct < 110
    assert report.env.device_uuid


def test_bf16_is_faster_and_smaller(report: Report) -> None:
    bf16 = report.model("bf16")
    assert bf16.vs_baseline.throughput_x > 1.2
    assert bf16.memory.weights_bytes == pytest.approx(report.baseline.memory.weights_bytes / 2, rel=0.01)


def test_energy_is_counted_where_nvml_can_be_used(report: Report) -> None:
    gpu = open_gpu(CUDA)
    if gpu.value is None:
        pytest.skip(gpu.reason)
    energy = report.baseline.timings[-1].energy
    if energy.gpu_energy_j is None:
        pytest.skip(energy.reasons["gpu_energy_j"])
    assert 10 < energy.mean_power_w < 2000
    assert energy.j_per_image == pytest.approx(1 / energy.images_per_j)


def test_running_out_of_memory_steps_down_and_says_so() -> None:
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 3 * 2**30 / total))
    try:
        settings = MeasureSettings.quick(batch_sizes=(4096,), groups=frozenset({"throughput"}))
        timing = compare({"x": vit()}, settings=settings, weights_origin="random").baseline.timings[0]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert timing.workload.batch_size < 4096
    assert any("runs out of memory" in note for note in timing.notes)
