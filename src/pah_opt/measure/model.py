"""Size and arithmetic of a model, counted rather than timed: parameters, zeros, bytes, MACs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.errors import MeasurementError, PahOptError
from pah_opt.measure.arithmetic import FlopCounter
from pah_opt.measure.shadow import dense_twin, input_dtype
from pah_opt.measure.tensors import (
    count_nonzero,
    held_tensors,
    is_packed,
    linear_layers,
    linear_shape,
    storage_type,
    tensor_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pah_opt.layout import ModelAdapter


@dataclass(frozen=True)
class ModelFigures:
    """What a model is made of.

    Args:
        params: parameters, counted logically: a packed or quantized weight counts the values it stands for; a shared
            one counts once; buffers do not count.
        params_nonzero: those that are not zero; None on the ``meta`` device.
        sparsity_pct: share of zeros among all parameters, 0 to 100; None on the ``meta`` device.
        macs: multiply-accumulates of matrix products and convolutions for one image.
        flops: twice ``macs``.
        flops_method: how they were counted.
        weights_bytes: bytes of all tensors (buffers and quantization scales too) in memory.
        linear_dtypes: number of linear layers by the type their weight is stored in, such as ``{"int8": 72}``.
    """

    params: int
    params_nonzero: int | None
    sparsity_pct: float | None
    macs: int
    flops: int
    flops_method: str
    weights_bytes: int
    linear_dtypes: dict[str, int]


def model_figures(
    model: nn.Module, *, adapter: ModelAdapter | None = None, example_shape: tuple[int, ...]
) -> ModelFigures:
    """Count what a model is made of; values are looked at for zeros only, and no forward pass is computed.

    Args:
        model: any device, ``meta`` too.
        adapter: takes the logits out of the model's output; None accepts any output.
        example_shape: shape of an input, ``(batch, channels, height, width)``; MACs are given for one image.

    Raises:
        MeasurementError: the forward pass fails on such an input, or multiplies no matrices.
    """
    params, nonzero = _parameters(model)
    flops, method = count_flops(model, adapter=adapter, example_shape=example_shape)
    sparsity = None if nonzero is None else 100.0 * (1.0 - nonzero / params) if params else 0.0
    return ModelFigures(
        params=params, params_nonzero=nonzero, sparsity_pct=sparsity, macs=flops // 2, flops=flops,
        flops_method=method, weights_bytes=tensor_bytes(model), linear_dtypes=linear_dtypes(model),
    )  # fmt: skip


def linear_dtypes(model: nn.Module) -> dict[str, int]:
    """Return how many linear layers store their weight in each type, most frequent first."""
    weights = [getattr(module, "weight", None) for module in linear_layers(model).values()]
    weights += [m.in_proj_weight for m in model.modules() if isinstance(m, nn.MultiheadAttention)]
    return dict(Counter(storage_type(weight) for weight in weights if weight is not None).most_common())


def _parameters(model: nn.Module) -> tuple[int, int | None]:
    """Return the number of parameters and of nonzero ones (None where values are missing)."""
    total = nonzero = 0
    on_meta = any(tensor.device.type == "meta" for tensor in held_tensors(model))
    for tensor, count in _logical_parameters(model):
        total += count
        nonzero += 0 if on_meta else count_nonzero(tensor)
    return total, None if on_meta else nonzero


def _logical_parameters(model: nn.Module) -> Iterator[tuple[Any, int]]:
    """Yield each parameter once with the number of values it stands for."""
    packed: dict[int, int] = {}
    for module in linear_layers(model).values():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and is_packed(weight):
            out, into = linear_shape(module)
            packed[id(weight)] = out * into
        elif callable(weight):  # torch.ao.nn.quantized modules have no parameters, only a packed weight
            yield weight().dequantize(), weight().numel()
    for parameter in model.parameters():
        yield parameter, packed.get(id(parameter), parameter.numel())


def count_flops(
    model: nn.Module, *, adapter: ModelAdapter | None = None, example_shape: tuple[int, ...]
) -> tuple[int, str]:
    """Return the floating-point operations for one image (two per multiply-accumulate), and how they were counted.

    Raises:
        MeasurementError: the forward pass fails on such an input, or multiplies no matrices.
    """
    try:
        total = _run_counter(dense_twin(model), adapter, example_shape, torch.device("meta"))
        method = "torch's flop formulas on the meta device, quantized layers as dense ones of their shape"
    except PahOptError:
        raise
    except Exception:  # noqa: BLE001  # whatever the forward pass needs values for; tried with values below
        total = _count_with_values(model, adapter, example_shape)
        method = "torch's flop formulas during a forward pass, quantized layers as dense ones of their shape"
    if total == 0:
        raise MeasurementError(
            f"{type(model).__name__} multiplies no matrices for an input of shape {example_shape}, so it has no MACs; "
            "check that the model really runs its layers"
        )
    return total // example_shape[0], method


def _count_with_values(model: nn.Module, adapter: ModelAdapter | None, shape: tuple[int, ...]) -> int:
    device = next((tensor.device for tensor in held_tensors(model)), torch.device("cpu"))
    try:
        return _run_counter(dense_twin(model, meta=False), adapter, shape, device)
    except PahOptError:
        raise
    except Exception as error:  # a forward pass of foreign modules may raise anything
        raise MeasurementError(
            f"the forward pass of {type(model).__name__} failed on an input of shape {shape}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _run_counter(twin: nn.Module, adapter: ModelAdapter | None, shape: tuple[int, ...], device: torch.device) -> int:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    pixels = torch.zeros(shape, device=device, dtype=input_dtype(twin))
    # The counter knows no CPU flash attention and no fused encoder layer: both are written out as matrix products.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounter() as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            output = twin(pixels)
            if adapter is not None:
                adapter.logits(output)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return int(counter.total)
