"""Attributes of attention modules, under the names that the families give them, and the scale of the scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.errors import UnsupportedModelError

if TYPE_CHECKING:
    from pah_opt.layout import Attention

_HEADS = ("num_attention_heads", "num_heads")
_HEAD_DIM = ("head_dim", "attention_head_size")
_VALUE_DIM = ("value_dim",)
_JOINED = ("all_head_size", "attn_dim")
_SCALE = ("scaling", "scale")


def set_head_shape(module: nn.Module, *, num_heads: int, head_dim: int, value_dim: int) -> None:
    """Write the shape of the heads into an attention module, under whatever names it uses.

    Call it whenever heads or their widths were changed: the number of rows alone does not tell which it was, and a
    stale ``head_dim`` changes the logits without an error.

    Args:
        module: the module at ``attention.path``.
        num_heads: number of heads it now has.
        head_dim: width of a query/key head.
        value_dim: width of a value head.
    """
    values = {_HEADS: num_heads, _HEAD_DIM: head_dim, _VALUE_DIM: value_dim, _JOINED: num_heads * value_dim}
    for names, value in values.items():
        for name in names:
            if hasattr(module, name):
                setattr(module, name, value)


def scaling_of(module: nn.Module, attention: Attention) -> float:
    """Return what an attention multiplies its scores by: as it states, else ``head_dim ** -0.5``."""
    name = scale_attribute(module)
    return float(attention.head_dim**-0.5 if name is None else getattr(module, name))


def scale_attribute(module: nn.Module) -> str | None:
    """Return the attribute that holds the scale of the scores, or None."""
    return next((name for name in _SCALE if isinstance(getattr(module, name, None), (int, float))), None)


@torch.no_grad()
def set_scaling(model: nn.Module, attention: Attention, wanted: float) -> None:
    """Make an attention multiply its scores by ``head_dim ** -0.5`` while the result stays ``wanted``.

    ``softmax(s q kᵀ) = softmax(d^-½ (s d^½ q) kᵀ)``: the difference goes into the query projection (or the norm of
    the queries, where there is one). Afterwards every implementation agrees on the scale, those that recompute it from
    ``head_dim`` too (a checkpoint loaded by transformers, timm's fused attention).

    Args:
        model: changed in place.
        attention: from the model's layout, with the head width it now has.
        wanted: what scores must be multiplied by, such as the original ``head_dim ** -0.5``.

    Raises:
        UnsupportedModelError: the queries are quantized, or normalised without a weight.
    """
    module = model.get_submodule(attention.path)
    standard = attention.head_dim**-0.5
    if not math.isclose(wanted, standard, rel_tol=1e-6):
        for rows in _query_rows(model, attention, module):
            rows.mul_(wanted / standard)
    name = scale_attribute(module)
    if name is not None:
        setattr(module, name, standard)


def _query_rows(model: nn.Module, attention: Attention, module: nn.Module) -> list[Tensor]:
    """Return the tensors that queries are proportional to, as views to be scaled in place."""
    norm = getattr(module, "q_norm", None)
    source: Any = model.get_submodule(attention.query)
    count: int | None = attention.num_heads * attention.head_dim
    if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity):
        source, count = norm, None
    weight, bias = getattr(source, "weight", None), getattr(source, "bias", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        raise UnsupportedModelError(
            f"the scale of {attention.path} cannot be kept: its queries come from a {type(source).__name__} without "
            "floating-point weights"
        )
    return [tensor[:count] for tensor in (weight, bias) if tensor is not None]
