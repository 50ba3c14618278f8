"""How large a model's file is, without writing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.storage.weights import Weights

if TYPE_CHECKING:
    from torch import nn


@torch.no_grad()
def stored_bytes(model: nn.Module) -> int:
    """Return the bytes of the weights file that saving an artifact with this model writes, exactly.

    Quantized tensors count as the plain tensors they are made of, shared tensors once, zeros a bit each or less where
    that is smaller. Nothing is written, and no more than one tensor at a time is copied. A model on the ``meta`` device
    has no values: its tensors count as dense.

    Args:
        model: the model, on any device.

    Returns:
        The size in bytes, the file's header included.

    Raises:
        ArtifactError: a tensor is of a type that cannot be stored; names it.
    """
    return Weights.of(model).nbytes
