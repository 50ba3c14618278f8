"""What the machine and the software are, and what else was going on while something was measured."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pah_opt.environment import installed_version
from pah_opt.measure.model_report import Env
from pah_opt.measure.nvml import Gpu, Reading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pah_opt.measure.sampling import Samples

CONTENDED = 0.1
"""From this share of the CPUs on, other processes are seen in timings."""
NOT_LINUX = "this system has no /proc/stat"


class CpuWatch:
    """Sees how much of the CPUs other processes use, from its creation on."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._busy = _busy_cpu_s()
        self._own = _own_cpu_s()

    def other_load(self) -> Reading[float]:
        """Return the mean number of CPUs that other processes kept busy since the start."""
        now = _busy_cpu_s()
        seconds = time.perf_counter() - self._started
        if now is None or self._busy is None:
            return Reading(None, NOT_LINUX)
        if seconds < 0.1:
            return Reading(None, "watched for less than 0.1 s")
        return Reading(max(0.0, (now - self._busy) - (_own_cpu_s() - self._own)) / seconds)


def _busy_cpu_s() -> float | None:
    """Return the CPU seconds that all processes have used since the machine started."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_cpu_s() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def cpu_model() -> str:
    """Return the name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cpu_count() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(
    device: torch.device,
    gpu: Reading[Gpu],
    *,
    plugins: Mapping[str, str],
    watch: CpuWatch | None = None,
    samples: Sequence[Samples] = (),
) -> Env:
    """Describe where something was measured.

    Args:
        device: the device the models are on.
        gpu: that device as NVML sees it, or why it cannot be seen.
        plugins: versions of loaded plugins, by name.
        watch: started before measuring.
        samples: taken of the GPU while measuring.
    """
    software = {
        "torch": torch.__version__, "transformers": installed_version("transformers"),
        "pah_opt": installed_version("pah-opt"), "plugins": dict(plugins),
    }  # fmt: skip
    load = watch.other_load() if watch is not None else Reading[float](None, "not watched")
    reasons = {"other_cpu_load": load.reason, "transformers": "not installed", "pah_opt": "not installed"}
    known: dict[str, Any] = {
        **software, "cpu_model": cpu_model(), "cpu_count": cpu_count(), "threads": torch.get_num_threads(),
        "other_cpu_load": load.value, "cuda": torch.version.cuda,
    }  # fmt: skip
    known |= _gpu_facts(device, gpu, samples, reasons) if device.type == "cuda" else {"device_name": cpu_model()}
    known["contended"] = _contended(known, load)
    reasons.setdefault("cuda", "this torch was built without CUDA")
    reasons.setdefault("contended", "neither other CPU load nor other GPU processes could be seen")
    return Env.having(gpu.reason or "not measured", reasons, **known)


def _contended(known: Mapping[str, Any], load: Reading[float]) -> bool | None:
    if known.get("other_gpu_processes"):
        return True
    return None if load.value is None else load.value > CONTENDED * cpu_count()


def _gpu_facts(
    device: torch.device, gpu: Reading[Gpu], samples: Sequence[Samples], reasons: dict[str, str]
) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    facts: dict[str, Any] = {
        "device_name": properties.name, "device_uuid": str(properties.uuid), "device_count": torch.cuda.device_count()
    }  # fmt: skip
    if gpu.value is None:
        return facts
    asked: dict[str, Reading[Any]] = {
        "mig": gpu.value.mig(), "driver": gpu.value.driver(), "other_gpu_processes": gpu.value.other_processes(),
        "sm_clock_mhz_mean": _mean_clock(samples), "throttle_reasons": _throttles(gpu.value, samples),
    }  # fmt: skip
    reasons |= {name: reading.reason for name, reading in asked.items()}
    return {**facts, **{name: reading.value for name, reading in asked.items()}}


def _mean_clock(samples: Sequence[Samples]) -> Reading[float]:
    clocks = [clock for each in samples for clock in each.sm_clock_mhz]
    return Reading(statistics.fmean(clocks)) if clocks else Reading(None, "no clock was sampled while measuring")


def _throttles(gpu: Gpu, samples: Sequence[Samples]) -> Reading[tuple[str, ...]]:
    if not samples:
        return gpu.throttle_reasons()
    return Reading(tuple(sorted({name for each in samples for name in each.throttles})))
