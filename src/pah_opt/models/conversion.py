"""Swap a family's own attention for :class:`~pah_opt.models.attention.SelfAttention`, with the same results."""

from __future__ import annotations

import os.path
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pah_opt.errors import UnsupportedModelError
from pah_opt.models.attention import SelfAttention
from pah_opt.models.attributes import scaling_of
from pah_opt.models.linears import linear_of, stacked, unstacked
from pah_opt.models.surgery import replace_module

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.layout import Attention


def holder_path(attention: Attention) -> str:
    """Return the path of the module that holds all four projections."""
    parts = (attention.query, attention.key, attention.value, attention.output)
    return os.path.commonpath([part.replace(".", "/") for part in parts]).replace("/", ".")


def convert_attention(model: nn.Module, attention: Attention, *, fused: bool) -> Attention:
    """Replace one attention in place by the library's own, with fused or separate projections; logits stay the same.

    Args:
        model: changed in place; any device.
        attention: from the model's layout.
        fused: whether one layer serves query, key and value.

    Returns:
        Where the parts now are.

    Raises:
        UnsupportedModelError: the attention does more than project and attend (norms of queries and keys).
    """
    if attention.native:
        attention = _without_raw_parameters(model, attention)
        if not fused:
            return attention
    path = holder_path(attention)
    old, holder = model.get_submodule(attention.path), model.get_submodule(path)
    refuse_extras(old, attention.path)
    own = assemble(
        _projections(model, attention, fused=fused), _linear(model, attention.output),
        num_heads=attention.num_heads, head_dim=attention.head_dim, value_dim=attention.value_dim,
        scaling=scaling_of(old, attention), dropout=_dropout(old), pair=_returns_pair(holder),
    )  # fmt: skip
    replace_module(model, path, own)
    query, key, value = (f"{path}.{name}" for name in (("qkv_proj",) * 3 if fused else ("q_proj", "k_proj", "v_proj")))
    return replace(attention, path=path, query=query, key=key, value=value, output=f"{path}.o_proj", fused=fused)


def _without_raw_parameters(model: nn.Module, attention: Attention) -> Attention:
    path = attention.path
    replace_module(model, path, from_multihead(model.get_submodule(path), path))  # type: ignore[arg-type]  # native
    query, key, value, output = (f"{path}.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj"))
    return replace(attention, query=query, key=key, value=value, output=output, native=False)


EXTRAS = ("q_norm", "k_norm", "norm", "gate")
"""Parts of timm's attention between the projections, where a model has them."""


def refuse_extras(module: nn.Module, path: str, names: Sequence[str] = EXTRAS) -> None:
    """Check that an attention does not normalise or gate between its projections.

    Args:
        module: the attention.
        path: its path, for the message.
        names: parts that are in the way of what is to be done.

    Raises:
        UnsupportedModelError: it has one of those parts.
    """
    extras = [name for name in names if _does_something(getattr(module, name, None))]
    if extras:
        raise UnsupportedModelError(
            f"{path} ({type(module).__name__}) also applies {', '.join(extras)}, which this change does not support; "
            "leave attention out of this step"
        )


def _does_something(part: Any) -> bool:
    return isinstance(part, nn.Module) and not isinstance(part, nn.Identity)


def _linear(model: nn.Module, path: str) -> nn.Linear:
    layer = model.get_submodule(path)
    if not isinstance(layer, nn.Linear) or not layer.weight.is_floating_point():
        raise UnsupportedModelError(f"{path} is a {type(layer).__name__}; a plain floating-point nn.Linear is needed")
    return layer


def _projections(model: nn.Module, attention: Attention, *, fused: bool) -> Sequence[nn.Linear]:
    found = [_linear(model, path) for path in dict.fromkeys((attention.query, attention.key, attention.value))]
    if fused == (len(found) == 1):
        return found
    if fused:
        return (stacked(found),)
    rows, value_rows = attention.num_heads * attention.head_dim, attention.num_heads * attention.value_dim
    return unstacked(found[0], (rows, rows, value_rows))


def _dropout(module: nn.Module) -> float:
    for name in ("attention_dropout", "dropout_prob", "attn_drop", "dropout"):
        found = getattr(module, name, None)
        found = getattr(found, "p", found)
        if isinstance(found, (int, float)):
            return float(found)
    return 0.0


def _returns_pair(holder: nn.Module) -> bool:
    # timm's attention is alone in returning a tensor; it is also alone in having ``qkv`` and ``proj``.
    return bool(getattr(holder, "pair", not (hasattr(holder, "qkv") and hasattr(holder, "proj"))))


def assemble(
    projections: Sequence[nn.Linear], output: nn.Linear, *, num_heads: int, head_dim: int, value_dim: int,
    scaling: float, dropout: float, pair: bool,
) -> SelfAttention:  # fmt: skip
    """Make an attention of given layers: one projection for query, key and value together, or three."""
    fused = len(projections) == 1
    with torch.device("meta"):
        own = SelfAttention(
            output.out_features, num_heads, head_dim, value_dim,
            fused=fused, scaling=scaling, dropout=dropout, pair=pair,
        )  # fmt: skip
    for name, layer in zip(("qkv_proj",) if fused else ("q_proj", "k_proj", "v_proj"), projections, strict=True):
        setattr(own, name, layer)
    own.o_proj = output
    return own


def from_multihead(native: nn.MultiheadAttention, path: str) -> SelfAttention:
    """Return an attention that computes what a self-attending ``torch.nn.MultiheadAttention`` does.

    Raises:
        UnsupportedModelError: it takes keys or values of another width, adds a bias key, or is sequence-first.
    """
    if native.in_proj_weight is None or native.bias_k is not None or native.add_zero_attn or not native.batch_first:
        raise UnsupportedModelError(
            f"{path}: nn.MultiheadAttention is supported for self-attention with batch_first=True, one width for "
            "query, key and value, and neither add_bias_kv nor add_zero_attn"
        )
    width, head_dim = native.embed_dim, native.embed_dim // native.num_heads
    trains = native.in_proj_weight.requires_grad
    whole = linear_of(native.in_proj_weight, native.in_proj_bias, requires_grad=trains)
    # A plain layer in place of out_proj: MultiheadAttention uses a subclass that stands apart from other linear layers.
    output = linear_of(native.out_proj.weight, native.out_proj.bias, requires_grad=native.out_proj.weight.requires_grad)
    own = assemble(
        unstacked(whole, (width, width, width)), output, num_heads=native.num_heads, head_dim=head_dim,
        value_dim=head_dim, scaling=head_dim**-0.5, dropout=native.dropout, pair=True,
    )  # fmt: skip
    return own.train(native.training)


def convert_multihead(model: nn.Module) -> nn.Module:
    """Replace every ``torch.nn.MultiheadAttention`` of ``model`` in place; logits stay the same.

    Raises:
        UnsupportedModelError: one is of a kind that cannot be replaced; names its path.
    """
    found = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)]
    for path, module in found:
        replace_module(model, path, from_multihead(module, path))
    return model
