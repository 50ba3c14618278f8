from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pah_opt.measure.energy import measure_energy
from pah_opt.measure.environment import describe
from pah_opt.measure.nvml import Gpu, Reading, open_gpu
from pah_opt.measure.sampling import Sampler, Samples
from pah_opt.measure.settings import MeasureSettings
from pah_opt.measure.timer import WallTimer

MakeGpu = Callable[..., Gpu]


@pytest.fixture
def gpu(recorded_nvml: Any) -> MakeGpu:
    return lambda **changes: Gpu(recorded_nvml(**changes), "GPU-0")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(uuid="7e7e-1", name="NVIDIA H100 80GB HBM3", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)


def test_answers_are_turned_into_units(gpu: MakeGpu) -> None:
    found = gpu()
    assert found.power_w().value == pytest.approx(690.0)
    assert found.sm_clock_mhz().value == 1755
    assert found.utilization_pct().value == (98.0, 41.0)
    assert found.mig().value is False
    assert found.driver().value == "550.54.15"


def test_throttle_bits_are_named_and_idling_is_no_throttle(gpu: MakeGpu) -> None:
    assert gpu().throttle_reasons().value == ("sw_power_cap",)


def test_newer_bindings_are_asked_by_the_newer_name(gpu: MakeGpu) -> None:
    found = gpu()
    found.nvml.nvmlDeviceGetCurrentClocksEventReasons = lambda handle: 0x60
    assert found.throttle_reasons().value == ("sw_thermal_slowdown", "hw_thermal_slowdown")


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("energy", Gpu.energy_mj), ("power", Gpu.power_w), ("clock", Gpu.sm_clock_mhz), ("mig", Gpu.mig),
        ("utilization", Gpu.utilization_pct), ("throttle", Gpu.throttle_reasons), ("processes", Gpu.processes),
        ("processes", Gpu.other_processes), ("processes", Gpu.own_bytes),
    ],
)  # fmt: skip
def test_a_missing_counter_is_none_with_the_reason(
    gpu: MakeGpu, name: str, ask: Callable[[Gpu], Reading[object]]
) -> None:
    found = ask(gpu(missing=(name,)))
    assert found.value is None
    assert "Not Supported" in found.reason


def test_other_processes_are_told_from_this_one(gpu: MakeGpu) -> None:
    assert gpu().other_processes().value == 0
    assert gpu(processes=((os.getpid(), 1), (4, 2), (5, 3))).other_processes().value == 2


def test_in_a_container_one_stranger_is_this_process(gpu: MakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert gpu(processes=((999_999_999, 1),)).other_processes().value == 0
    found = gpu(processes=((999_999_999, 1),)).own_bytes()
    assert (found.value, "container" in found.reason) == (None, True)


def test_own_memory_is_what_the_driver_counts(gpu: MakeGpu) -> None:
    assert gpu().own_bytes().value == 3_221_225_472


def test_a_device_is_found_by_its_uuid(recorded_nvml: Any, card: None) -> None:
    found = open_gpu(torch.device("cuda", 0), recorded_nvml())
    assert found.value is not None
    assert found.value.handle == "GPU-7e7e-1"


def test_a_driver_that_does_not_answer_is_a_reason(recorded_nvml: Any, card: None) -> None:
    found = open_gpu(torch.device("cuda", 0), recorded_nvml(missing=("nvmlInit",)))
    assert (found.value, "NVML cannot be used" in found.reason) == (None, True)


def test_without_the_bindings_the_reason_names_the_extra(card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_gpu(torch.device("cuda", 0)).reason == "nvidia-ml-py is not installed; pip install 'pah-opt[gpu]'"


def test_the_cpu_has_no_such_counters() -> None:
    assert "only CUDA devices" in open_gpu(torch.device("cpu")).reason


def test_sampling_fills_every_series(gpu: MakeGpu) -> None:
    with Sampler(gpu(), period_s=0.005) as samples:
        time.sleep(0.2)
    assert samples.count >= 3
    assert samples.mean("gpu_pct").value == 98.0
    assert samples.mean("mem_pct").value == 41.0
    assert samples.mean("sm_clock_mhz").value == 1755
    assert samples.mean("power_w").value == pytest.approx(700, rel=0.02)
    assert samples.throttles["sw_power_cap"] == samples.count
    assert samples.period_ms is not None
    assert 5 <= samples.period_ms < 500


def test_power_is_integrated_by_trapezoids() -> None:
    samples = Samples(moments=[0.0, 1.0, 3.0], power_w=[100.0, 200.0, 300.0])
    assert samples.energy_j().value == 150 + 500


def test_a_series_that_cannot_be_had_says_why(gpu: MakeGpu) -> None:
    with Sampler(gpu(missing=("utilization", "power")), period_s=0.005) as samples:
        time.sleep(0.01)
    assert "Not Supported" in samples.mean("gpu_pct").reason
    assert "Not Supported" in samples.energy_j().reason


def energy_of(device: Gpu, **changes: float) -> tuple[object, Samples]:
    settings = MeasureSettings.of(**{"energy_s": 0.15, "idle_s": 0.02, **changes})
    return measure_energy(lambda: time.sleep(0.005), 4, WallTimer(), device, settings)


def test_energy_is_the_counters_difference_over_the_loop(gpu: MakeGpu) -> None:
    found, samples = energy_of(gpu())
    assert found.gpu_energy_j == pytest.approx(70.0)
    assert found.source == "nvml_total_energy"
    assert found.j_per_image == pytest.approx(1 / found.images_per_j)
    assert found.mean_power_w == pytest.approx(70.0 / found.duration_s)
    assert found.idle_power_w == pytest.approx(700, rel=0.02)
    assert samples.count > 0


def test_a_short_window_is_marked(gpu: MakeGpu) -> None:
    assert energy_of(gpu())[0].window_ok is False


def test_without_a_counter_power_is_integrated_and_said(gpu: MakeGpu) -> None:
    found, _ = energy_of(gpu(missing=("energy",)))
    assert found.source == "nvml_power_integrated"
    assert found.gpu_energy_j == pytest.approx(700 * found.duration_s, rel=0.5)


def test_without_counter_and_power_energy_is_null_never_zero(gpu: MakeGpu) -> None:
    found, _ = energy_of(gpu(missing=("energy", "power")))
    assert (found.gpu_energy_j, found.j_per_image, found.window_ok) == (None, None, None)
    assert "Not Supported" in found.reasons["gpu_energy_j"]


def test_a_counter_that_stands_still_is_not_zero_joules(gpu: MakeGpu) -> None:
    device = gpu(missing=("power",))
    device.nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 5
    found, _ = energy_of(device)
    assert found.gpu_energy_j is None
    assert "did not move" in found.reasons["gpu_energy_j"]


def test_the_environment_of_a_gpu_is_described(gpu: MakeGpu, card: None) -> None:
    device = torch.device("cuda", 0)
    samples = Samples(sm_clock_mhz=[1700.0, 1800.0])
    samples.throttles.update(["sw_power_cap", "sw_power_cap"])
    found = describe(
        device, Reading(gpu(processes=((os.getpid(), 1), (4, 2)))), plugins={"mine": "1.0"}, samples=[samples]
    )
    assert (found.device_name, found.device_uuid, found.device_count) == ("NVIDIA H100 80GB HBM3", "7e7e-1", 8)
    assert (found.mig, found.driver, found.sm_clock_mhz_mean) == (False, "550.54.15", 1750.0)
    assert found.throttle_reasons == ("sw_power_cap",)
    assert (found.other_gpu_processes, found.contended) == (1, True)
    assert found.plugins == {"mine": "1.0"}


def test_a_gpu_without_nvml_is_described_with_reasons(card: None) -> None:
    found = describe(torch.device("cuda", 0), Reading(None, "nvidia-ml-py is not installed"), plugins={})
    assert found.device_name == "NVIDIA H100 80GB HBM3"
    assert found.driver is None
    assert found.reasons["driver"] == "nvidia-ml-py is not installed"
