"""What a forward pass needs in memory, in a pass of its own."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pah_opt.errors import PahOptError
from pah_opt.measure.nvml import Gpu, Reading
from pah_opt.measure.schema import Memory
from pah_opt.measure.tensors import tensor_bytes

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.measure.timer import Call

NO_CUDA = "the model is not on a CUDA device"
CLEAR_PEAK = "5"
"""Written to clear_refs, resets VmHWM (proc(5))."""


def measure_memory(model: nn.Module, call: Call, device: torch.device, gpu: Reading[Gpu]) -> Memory:
    """Run one forward pass and see what it takes.

    Args:
        model: the model that ``call`` runs.
        call: one forward pass, warmed up.
        device: where it runs.
        gpu: the device as NVML sees it, or why it cannot be seen.
    """
    weights = tensor_bytes(model)
    host = _host_peak(call)
    stored = _stored_bytes(model)
    if device.type != "cuda":
        known = {"weights_bytes": weights, "host_rss_peak_bytes": host.value, "artifact_bytes": stored.value}
        return Memory.having(NO_CUDA, {"host_rss_peak_bytes": host.reason, "artifact_bytes": stored.reason}, **known)
    allocated, reserved = _cuda_peaks(call, device, weights)
    vram = gpu.value.own_bytes() if gpu.value is not None else Reading[int](None, gpu.reason)
    return Memory.having(
        reasons={
            "host_rss_peak_bytes": host.reason, "process_vram_bytes": vram.reason, "artifact_bytes": stored.reason
        },
        weights_bytes=weights, peak_allocated_bytes=allocated, peak_reserved_bytes=reserved,
        process_vram_bytes=vram.value, host_rss_peak_bytes=host.value, artifact_bytes=stored.value,
    )  # fmt: skip


def _cuda_peaks(call: Call, device: torch.device, weights: int) -> tuple[int, int]:
    """Return the most bytes allocated and reserved during a pass, as if this model were alone on the device."""
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    call()
    torch.cuda.synchronize(device)
    # What is there already is this model's weights, its input, and other models' tensors; only the first is its own.
    return (
        torch.cuda.max_memory_allocated(device) - allocated + weights,
        torch.cuda.max_memory_reserved(device) - reserved + weights,
    )


def _host_peak(call: Call) -> Reading[int]:
    """Return the most resident memory of this process during a pass."""
    try:
        Path("/proc/self/clear_refs").write_text(CLEAR_PEAK, encoding="ascii")
    except OSError:
        call()
        return _peak_so_far()
    call()
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    kilobytes = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return _peak_so_far() if kilobytes is None else Reading(kilobytes * 1024)


def _peak_so_far() -> Reading[int]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Reading(peak if sys.platform == "darwin" else peak * 1024)


def _stored_bytes(model: nn.Module) -> Reading[int]:
    from pah_opt.storage import stored_bytes

    try:
        return Reading(stored_bytes(model))
    except PahOptError as error:
        return Reading(None, f"the model cannot be saved: {error}")
