"""What the NVIDIA driver counts: energy, power, clocks, throttling, utilization, processes (through nvidia-ml-py).

Every query answers with a :class:`Reading`: a value, or the reason why there is none. Nothing here raises.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

THROTTLES = {
    0x002: "applications_clocks_setting", 0x004: "sw_power_cap", 0x008: "hw_slowdown", 0x010: "sync_boost",
    0x020: "sw_thermal_slowdown", 0x040: "hw_thermal_slowdown", 0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}  # fmt: skip
"""Bits of nvmlClocksEventReasons that lower the clock; idling (0x001) does too, and says nothing."""


@dataclass(frozen=True)
class Reading(Generic[T]):
    """One answer; ``value`` is None when there is none, and then ``reason`` says why."""

    value: T | None
    reason: str = ""


class GpuProcess(NamedTuple):
    """A process that computes on the device."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True)
class Gpu:
    """One device as NVML sees it.

    Args:
        nvml: the ``pynvml`` module, or something that answers like it.
        handle: NVML's handle of the device.
    """

    nvml: Any
    handle: Any

    def _ask(self, what: str, query: Callable[[], T]) -> Reading[T]:
        try:
            return Reading(query())
        except Exception as error:  # noqa: BLE001  # NVMLError has many subclasses; older bindings lack functions
            return Reading(None, f"NVML has no {what} for this device: {error}")

    def energy_mj(self) -> Reading[int]:
        """Return the energy used since the driver was loaded, in millijoules."""
        return self._ask("energy counter", lambda: int(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)))

    def power_w(self) -> Reading[float]:
        """Return the power drawn now, in watts."""
        return self._ask("power reading", lambda: self.nvml.nvmlDeviceGetPowerUsage(self.handle) / 1e3)

    def sm_clock_mhz(self) -> Reading[int]:
        """Return the clock of the multiprocessors, in MHz."""
        return self._ask("clock", lambda: int(self.nvml.nvmlDeviceGetClockInfo(self.handle, self.nvml.NVML_CLOCK_SM)))

    def utilization_pct(self) -> Reading[tuple[float, float]]:
        """Return for how much of the last period kernels ran and memory was accessed, in percent."""
        return self._ask("utilization", self._utilization)

    def _utilization(self) -> tuple[float, float]:
        rates = self.nvml.nvmlDeviceGetUtilizationRates(self.handle)
        return float(rates.gpu), float(rates.memory)

    def throttle_reasons(self) -> Reading[tuple[str, ...]]:
        """Return what lowers the clock now."""
        return self._ask("throttle reasons", self._throttles)

    def _throttles(self) -> tuple[str, ...]:
        name = "nvmlDeviceGetCurrentClocksEventReasons"
        if not hasattr(self.nvml, name):  # bindings before 12.535
            name = "nvmlDeviceGetCurrentClocksThrottleReasons"
        mask = int(getattr(self.nvml, name)(self.handle))
        return tuple(text for bit, text in THROTTLES.items() if mask & bit)

    def processes(self) -> Reading[list[GpuProcess]]:
        """Return the processes that compute on the device."""
        return self._ask("list of processes", self._processes)

    def _processes(self) -> list[GpuProcess]:
        found = self.nvml.nvmlDeviceGetComputeRunningProcesses(self.handle)
        return [GpuProcess(int(process.pid), process.usedGpuMemory) for process in found]

    def other_processes(self) -> Reading[int]:
        """Return how many other processes compute on the device."""
        found = self.processes()
        if found.value is None:
            return Reading(None, found.reason)
        others = [process for process in found.value if process.pid != os.getpid()]
        # In a container NVML shows the host's process ids: one of the strangers is then this process.
        hidden = len(others) == len(found.value) and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return Reading(max(0, len(others) - hidden))

    def own_bytes(self) -> Reading[int]:
        """Return the device memory that the driver counts for this process."""
        found = self.processes()
        if found.value is None:
            return Reading(None, found.reason)
        for process in found.value:
            if process.pid == os.getpid() and process.used_bytes is not None:
                return Reading(process.used_bytes)
        return Reading(None, "NVML does not list this process (process ids of a container differ from the driver's)")

    def mig(self) -> Reading[bool]:
        """Return whether the device is partitioned (multi-instance GPU)."""
        return self._ask("MIG mode", lambda: bool(self.nvml.nvmlDeviceGetMigMode(self.handle)[0]))

    def driver(self) -> Reading[str]:
        """Return the driver's version."""
        return self._ask("driver version", lambda: _text(self.nvml.nvmlSystemGetDriverVersion()))


def open_gpu(device: torch.device, nvml: Any = None) -> Reading[Gpu]:
    """Find the NVML handle of a torch device.

    Args:
        device: the device.
        nvml: what answers instead of ``pynvml``.
    """
    if device.type != "cuda":
        return Reading(None, f"the model is on the {device.type}; only CUDA devices have these counters")
    try:
        return _open(device, nvml or importlib.import_module("pynvml"))
    except ImportError:
        return Reading(None, "nvidia-ml-py is not installed; pip install 'pah-opt[gpu]'")


def _open(device: torch.device, nvml: Any) -> Reading[Gpu]:
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    try:
        nvml.nvmlInit()
    except Exception as error:  # noqa: BLE001  # NVMLError and its subclasses, or a library that cannot be loaded
        return Reading(None, f"NVML cannot be used: {error}")
    for prefix in ("GPU-", "MIG-", ""):
        with contextlib.suppress(Exception):
            return Reading(Gpu(nvml, nvml.nvmlDeviceGetHandleByUUID(prefix + uuid)))
    return Reading(None, f"NVML knows no device with the UUID {uuid}")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
