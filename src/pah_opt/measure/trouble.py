"""Running out of memory, on every kind of device."""

from __future__ import annotations

import gc

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception says that memory ran out: torch has a type for it on GPUs only."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in text or "out of memory" in text)


def release_memory() -> None:
    """Give cached memory back after running out of it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
