"""Several processes under ``accelerate launch``: all take part in training, the main one alone measures and writes."""

from __future__ import annotations

import os

RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""Variables in which launchers tell a process its number, as accelerate reads them."""


def is_main() -> bool:
    """Tell whether this process measures and writes; a process that nothing launched beside others does."""
    return next((int(os.environ[name]) for name in RANKS if os.environ.get(name, "").isdigit()), 0) == 0


def wait_for_all() -> None:
    """Wait until every process is here; at once where no training has brought several together."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
