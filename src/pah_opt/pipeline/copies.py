"""Copies of models: a private one to work on, and one without values for dry runs."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pah_opt.errors import UnsupportedModelError


def private_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy of ``model``, without gradients.

    Raises:
        UnsupportedModelError: the model cannot be copied; names the cause.
    """
    try:
        twin = copy.deepcopy(model)
    except Exception as error:  # copying runs __deepcopy__ and __reduce__ of foreign modules
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}); "
            "pass inplace=True to change the model itself"
        ) from error
    twin.zero_grad(set_to_none=True)
    return twin


def meta_copy(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` on the ``meta`` device: same modules and shapes, no values, no memory."""
    memo: dict[int, object] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        memo[id(tensor)] = _meta_twin(tensor)
    return copy.deepcopy(model, memo).eval()


def _meta_twin(tensor: torch.Tensor) -> torch.Tensor:
    twin = tensor.detach().to("meta")
    return nn.Parameter(twin, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin
