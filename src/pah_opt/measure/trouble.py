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


def forget_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception or one of its causes is a lack of memory; give cached memory back where it is.

    The pipeline names the step that failed, and keeps what the step raised as the cause.
    """
    cause: BaseException | None = error
    while cause is not None and not is_out_of_memory(cause):
        cause = cause.__cause__
    if cause is not None:
        release_memory()
    return cause is not None
