from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.errors import MeasurementError
from pah_opt.measure import rounds, throughput, timer, timing, warmup
from pah_opt.measure.assemble import ratio_of
from pah_opt.measure.candidate import Candidate
from pah_opt.measure.nvml import Gpu
from pah_opt.measure.settings import MeasureSettings
from pah_opt.measure.timer import Call
from pah_opt.measure.timing import Timed, time_models


class Clock:
    """A clock that only stubs move."""

    def __init__(self) -> None:
        self.now_ns = 0

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def perf_counter(self) -> float:
        return self.now_ns / 1e9


@pytest.fixture(autouse=True)
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    if "real" not in request.node.name:
        for module in (timer, throughput, warmup, rounds):
            monkeypatch.setattr(module, "time", fake)
    Stub.clock = fake
    return fake


class Stub:
    """A candidate whose passes take a known time, and which runs out of memory above a batch size."""

    device = torch.device("cpu")
    clock: Clock

    def __init__(self, ms: float, largest: int = 10**6, error: Exception | None = None) -> None:
        self.ms, self.largest = ms, largest
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.random = random.Random(ms)

    def call(self, batch: int, seed: int = 0) -> Call:
        if batch > self.largest:
            raise self.error
        return self._pass

    def _pass(self) -> None:
        """Take the known time, give or take a tenth."""
        self.clock.now_ns += int(self.ms * 1e6 * self.random.uniform(0.95, 1.05))


def quick(**changes: Any) -> MeasureSettings:
    return MeasureSettings.quick(**{"throughput_s": 0.08, "block_ms": 3.0, "max_rounds": 10, **changes})


def timed(candidates: dict[str, Any], batch: Any = 4, gpu: Gpu | None = None, **changes: Any) -> dict[str, Timed]:
    found: dict[str, Timed] = {}
    time_models(candidates, batch, quick(**changes), baseline="base", gpu=gpu, into=found)
    return found


def test_a_model_twice_as_fast_is_measured_so() -> None:
    found = timed({"base": Stub(1.0), "fast": Stub(0.5)})
    ratio = ratio_of(found["fast"], found["base"])
    assert ratio.speedup_p50_x == pytest.approx(2.0, rel=0.05)
    assert ratio.throughput_x == pytest.approx(2.0, rel=0.05)
    assert ratio.speedup_ci95_x is not None
    assert 1.8 < ratio.speedup_ci95_x[0] <= 2.0 <= ratio.speedup_ci95_x[1] < 2.2


def test_raw_times_are_kept_round_by_round() -> None:
    found = timed({"base": Stub(0.2), "other": Stub(0.2)})
    assert len(found["base"].blocks) == len(found["other"].blocks) >= 8
    assert all(len(block.device_ms) == found["base"].iters for block in found["base"].blocks)
    assert sum(part.images for part in found["base"].slices) % 4 == 0


def test_a_group_that_is_not_asked_for_is_not_measured() -> None:
    found = timed({"base": Stub(0.1)}, groups=frozenset({"throughput"}))["base"]
    assert (found.blocks, found.energy) == ([], None)
    assert found.slices


@pytest.mark.parametrize("error", [None, RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_running_out_of_memory_steps_down_for_everyone_and_says_so(error: Exception | None) -> None:
    found = timed({"base": Stub(0.1), "large": Stub(0.1, largest=5, error=error)}, batch=16)
    assert {each.batch_size for each in found.values()} == {4}
    note = "large runs out of memory at batch 16; every model was measured at batch 8 instead"
    assert note in found["base"].notes
    assert note in found["large"].notes


def test_no_memory_for_one_image_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="large runs out of memory with one image"):
        timed({"base": Stub(0.1), "large": Stub(0.1, largest=0)}, batch=2)


def test_any_other_failure_is_raised() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        timed({"base": Stub(0.1, largest=0, error=RuntimeError("shapes do not match"))}, batch=2)


def test_each_model_gets_its_own_best_batch_and_says_what_was_tried() -> None:
    found = timed({"base": Stub(0.2, largest=4), "other": Stub(0.2, largest=2)}, batch="best", largest_batch=64)
    assert (found["base"].batch_size, found["other"].batch_size) == (4, 2)
    assert any("best throughput of those tried" in note for note in found["base"].notes)
    assert "batch 8 runs out of memory" in found["base"].notes
    ratio = ratio_of(found["other"], found["base"])
    assert ratio.speedup_p50_x is None
    assert ratio.reasons["speedup_p50_x"] == "the two were measured at different batch sizes"
    assert ratio.throughput_x is not None


def test_energy_is_read_where_there_are_counters(recorded_nvml: Any) -> None:
    found = timed({"base": Stub(0.5)}, gpu=Gpu(recorded_nvml(), "GPU-0"), energy_s=0.05, idle_s=0.0)["base"]
    assert found.energy is not None
    assert found.energy.gpu_energy_j == pytest.approx(70.0)
    assert found.samples is not None


def test_what_was_measured_before_ctrl_c_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "_throughput", interrupted)
    found: dict[str, Timed] = {}
    with pytest.raises(KeyboardInterrupt):
        time_models({"base": Stub(0.1)}, 1, quick(), baseline="base", gpu=None, into=found)  # type: ignore[dict-item]
    assert found["base"].blocks


def test_an_injected_slow_down_of_a_real_model_is_seen(
    model: nn.Module, candidate: Candidate, make_vit: Callable[..., nn.Module]
) -> None:
    """The same model with three times as many blocks must come out slower, however busy the machine."""
    deeper = make_vit(num_hidden_layers=6)
    twins = {"base": candidate, "deeper": copy.copy(candidate)}
    twins["deeper"].model = deeper
    found = timed(
        twins, batch=1, max_rounds=40, interval_width=1e-6, latency_limit_s=20.0, groups=frozenset({"latency"})
    )
    ratio = ratio_of(found["deeper"], found["base"])
    assert ratio.speedup_ci95_x is not None
    assert ratio.speedup_ci95_x[1] < 1.0
