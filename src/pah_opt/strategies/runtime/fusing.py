"""Fuse what attention computes: scores, softmax and sum into one kernel, three projections into one product."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from pah_opt.errors import UnsupportedModelError
from pah_opt.models.attention import SelfAttention
from pah_opt.models.conversion import convert_attention, refuse_extras
from pah_opt.strategies.runtime.agreement import check_agreement, example_logits, example_pixels

if TYPE_CHECKING:
    from collections.abc import Callable

    from pah_opt.layout import Attention, Layout
    from pah_opt.optimizer import Context

FUSED = "sdpa"
"""What transformers calls ``scaled_dot_product_attention``."""


def written_out(model: nn.Module, layout: Layout) -> list[Attention]:
    """Return the attentions that compute scores, softmax and sum as separate operations."""
    return [block.attention for block in layout.blocks if _is_written_out(model, block.attention)]


def _is_written_out(model: nn.Module, attention: Attention) -> bool:
    module = model.get_submodule(attention.path)
    if isinstance(module, (SelfAttention, nn.MultiheadAttention)):
        return False
    if hasattr(module, "fused_attn"):  # timm
        return not module.fused_attn
    chosen = _implementation(module)
    if chosen is not None and hasattr(module, "scaling"):  # transformers 5 asks the config
        return chosen == "eager"
    return "sdpa" not in type(module).__name__.lower()  # transformers 4 had one class for each way


def _implementation(module: Any) -> str | None:
    found: str | None = getattr(getattr(module, "config", None), "_attn_implementation", None)
    return found


def fuse_attention(model: nn.Module, context: Context) -> nn.Module:
    """Have every attention compute ``scaled_dot_product_attention``, in place.

    Raises:
        UnsupportedModelError: a kind of attention cannot be switched, or computes something else afterwards.
    """
    eager = written_out(model, context.adapter.layout(model))

    def switch() -> None:
        for attention in eager:
            _switch(model, attention)
        context.adapter.sync(model)

    _checked(model, context, switch, "fusing attention")
    context.record("fused_blocks", len(eager))
    return model


def _switch(model: nn.Module, attention: Attention) -> None:
    module: Any = model.get_submodule(attention.path)
    whole: Any = model
    if hasattr(module, "fused_attn"):
        module.fused_attn = True
    elif hasattr(whole, "set_attn_implementation") and _implementation(module) is not None:
        whole.set_attn_implementation(FUSED)
    else:
        convert_attention(model, attention, fused=attention.fused)


def qkv_problems(model: nn.Module, layout: Layout) -> list[str]:
    """Return why the projections of a model cannot be fused; empty when they can."""
    apart = [block.attention for block in layout.blocks if not block.attention.fused]
    if not apart:
        return ["query, key and value are one matrix product in every block already; leave the step out"]
    return [problem for attention in apart if (problem := _extras(model, attention)) is not None]


def _extras(model: nn.Module, attention: Attention) -> str | None:
    try:
        refuse_extras(model.get_submodule(attention.path), attention.path)
    except UnsupportedModelError as error:
        return str(error)
    return None


def fuse_qkv(model: nn.Module, context: Context) -> nn.Module:
    """Stack query, key and value of every block into one linear layer, in place.

    Raises:
        UnsupportedModelError: an attention does more than project and attend, or computes something else afterwards.
    """
    apart = [block.attention for block in context.adapter.layout(model).blocks if not block.attention.fused]

    def stack() -> None:
        for attention in apart:
            convert_attention(model, attention, fused=True)
        context.adapter.sync(model)

    _checked(model, context, stack, "fusing query, key and value")
    context.record("fused_blocks", len(apart))
    return model


def _checked(model: nn.Module, context: Context, change: Callable[[], None], what: str) -> None:
    """Make a change in place and compare the logits before and after; on a dry run, make the change."""
    if context.planning:
        change()
        return
    pixels = example_pixels(model, context)
    before = example_logits(model, context, pixels)
    change()
    context.record("logits_change", check_agreement(before, example_logits(model, context, pixels), model, what))
