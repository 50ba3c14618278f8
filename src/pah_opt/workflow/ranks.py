"""Several processes under ``accelerate launch``: all train and classify, the main one alone times and writes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pah_opt.errors import UnsupportedHardwareError
from pah_opt.progress import Progress, default_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""Variables in which launchers tell a process its number, as accelerate reads them."""
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables in which they tell how many processes there are."""


def is_main() -> bool:
    """Tell whether this process measures and writes; a process that nothing launched beside others does."""
    return _told(RANKS, 0) == 0


def is_alone() -> bool:
    """Tell whether no launcher started other processes beside this one."""
    return _told(SIZES, 1) == 1


def _told(names: Sequence[str], otherwise: int) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), otherwise)


def main_progress() -> Progress:
    """Return the usual progress in the main process, silence in the others."""
    return default_progress() if is_main() else Progress()


def own_device(device: str) -> str:
    """Return the GPU of this process where ``cuda`` is asked for and a launcher gave each its own.

    Raises:
        UnsupportedHardwareError: there is no such device here.
    """
    import torch

    local = os.environ.get("LOCAL_RANK", "")
    chosen = f"cuda:{local}" if device == "cuda" and local.isdigit() else device
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        first = (str(error).splitlines() or [""])[0]
        raise UnsupportedHardwareError(
            f"device {chosen!r} cannot be used here: {first}; allowed: cpu, and cuda where torch finds a GPU (pah-opt "
            "doctor says)"
        ) from error
    return chosen


def wait_for_all() -> None:
    """Wait until every process is here; at once where no training has brought several together."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
