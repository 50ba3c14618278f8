"""A twin of a model for counting its arithmetic: same shapes, dense layers, no values, nothing compiled.

torch's formulas know dense matrix products only: not the kernels of torchao and bitsandbytes, nor what runs
inside a compiled graph. A quantized layer multiplies exactly what the dense layer of its shape multiplies, so the twin
has dense layers instead, and the count is the same for every storage type.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from pah_opt.measure.tensors import is_plain, linear_layers, linear_shape


def input_dtype(model: nn.Module) -> torch.dtype:
    """Return the floating-point type in which a model takes pixels: that of its first floating-point weight."""
    floats = (tensor.dtype for tensor in model.parameters() if tensor.is_floating_point() and tensor.element_size() > 1)
    return next(floats, torch.float32)


def dense_twin(model: nn.Module, *, meta: bool = True) -> nn.Module:
    """Return a copy of ``model`` in ``eval`` mode with dense linear layers and without compilation.

    Args:
        model: any model; untouched.
        meta: put the twin on the ``meta`` device, where a forward pass costs nothing; otherwise it shares the
            model's plain tensors and has new, zero-valued ones for its quantized layers.
    """
    root = uncompiled(model)
    device = "meta" if meta else None
    memo: dict[int, Any] = {}
    for module in root.modules():
        if (inner := uncompiled(module)) is not module:
            memo[id(module)] = copy.deepcopy(inner, _remember(inner, memo, device))
    twin = copy.deepcopy(root, _remember(root, memo, device))
    return twin.eval()


def uncompiled(module: nn.Module) -> nn.Module:
    """Return what ``torch.compile(module)`` wrapped, or the module itself."""
    inner = getattr(module, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else module


def _remember(model: nn.Module, memo: dict[int, Any], device: str | None) -> dict[int, Any]:
    """Tell ``deepcopy`` what takes the place of each quantized layer and each tensor."""
    default = input_dtype(model)
    for module in linear_layers(model).values():
        if not is_plain(getattr(module, "weight", None)):
            memo.setdefault(id(module), _dense_layer(module, device or _device_of(module), default))
    for tensor in (*model.parameters(), *model.buffers()):
        memo.setdefault(id(tensor), tensor if device is None else _meta_tensor(tensor))
    return memo


def _dense_layer(module: nn.Module, device: str | torch.device, default: torch.dtype) -> nn.Linear:
    out, into = linear_shape(module)
    bias = getattr(module, "bias", None)
    dtype = _compute_dtype(module, default)
    layer = nn.Linear(into, out, bias=bias is not None, device=device, dtype=dtype)
    if layer.weight.device.type != "meta":
        nn.init.zeros_(layer.weight)
    return layer


def _compute_dtype(module: nn.Module, default: torch.dtype) -> torch.dtype:
    # Four bits of bitsandbytes know what they were; their bias takes the type of their products.
    state = getattr(getattr(module, "weight", None), "quant_state", None)
    if isinstance(dtype := getattr(state, "dtype", None), torch.dtype):
        return dtype
    # A subclass's dtype is the type it pretends to have; integer weights (bitsandbytes) leave the bias's.
    for tensor in (getattr(module, "weight", None), getattr(module, "bias", None)):
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.element_size() > 1:
            return tensor.dtype
    return default


def _device_of(module: nn.Module) -> torch.device:
    return next((tensor.device for tensor in module.parameters()), torch.device("cpu"))


def _meta_tensor(tensor: Tensor) -> Tensor:
    twin = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    if not isinstance(tensor, nn.Parameter):
        return twin
    return nn.Parameter(twin, requires_grad=tensor.requires_grad and tensor.is_floating_point())
