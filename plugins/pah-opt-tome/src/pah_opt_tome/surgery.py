"""Blocks that merge tokens between attention and feed-forward network, made of the blocks a model has.

A block keeps its modules, names and tensors; its class becomes a subclass with another forward pass. How many tokens
each token stands for travels from block to block as one more channel, so that blocks stay independent: they can be run
one at a time (calibration does), copied, compiled and exported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from pah_opt.errors import UnsupportedModelError
from pah_opt_tome.matching import attention_bias, bipartite_matching, merge, unmerge
from pah_opt_tome.parts import Parts, parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.layout import Layout


@dataclass(frozen=True)
class Merging:
    """What one block does; plain data, stored in artifacts.

    Args:
        path: of the block.
        r: tokens it merges away.
        tokens: that it takes; another number means another input size.
        protected: tokens at the front that never merge.
        sized: its input carries sizes in a last channel.
        carries: its output does.
        restore: original number of tokens, to be restored in its output; 0 for none.
        proportional: attention counts a merged token as often as what it stands for.
    """

    path: str
    r: int
    tokens: int
    protected: int
    sized: bool
    carries: bool
    restore: int
    proportional: bool

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)


class MergingBlock(nn.Module):
    """Forward pass of a block that merges; mixed into the class of the block (see :func:`install`)."""

    merging: Merging

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle it as its own class and its state: the class that merges is made anew where it is read."""
        return _blank, (type(self).__bases__[1],), self.__getstate__()  # type: ignore[no-untyped-call]  # torch's own

    def forward(self, hidden_states: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Return ``(batch, tokens - r, hidden_size)``, one channel wider while sizes travel on.

        Raises:
            UnsupportedModelError: a mask or another number of tokens was given.
        """
        tokens = _only_tokens(hidden_states, args, kwargs)
        merging, parts = self.merging, parts_of(self)
        _check_count(tokens, merging)
        tokens, sizes = _take_apart(tokens, sized=merging.sized)
        attended, keys = attend(parts, parts.norm1(tokens), sizes if merging.sized and merging.proportional else None)
        tokens = tokens + parts.after_attention(attended)
        if merging.r:
            tokens, sizes = merge(tokens, sizes, bipartite_matching(keys, merging.r, merging.protected))
        tokens = parts.feed_forward(tokens)
        if merging.restore:
            tokens = unmerge(tokens, sizes, merging.restore)
        output = torch.cat((tokens, sizes), dim=-1) if merging.carries else tokens
        return (output,) if parts.returns_tuple else output


def _only_tokens(hidden_states: Tensor | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    tokens = kwargs.pop("input", hidden_states)
    masks = [*args, kwargs.get("attention_mask"), kwargs.get("attn_mask"), kwargs.get("head_mask")]
    # While a model is traced, transformers makes a mask in which every token sees every other.
    if any(isinstance(mask, Tensor) for mask in masks) and not torch.compiler.is_compiling():
        raise UnsupportedModelError("a block that merges tokens takes no attention mask: tokens change places")
    return tokens  # type: ignore[no-any-return]  # what the model passes on


def _check_count(tokens: Tensor, merging: Merging) -> None:
    if tokens.shape[1] != merging.tokens:
        raise UnsupportedModelError(
            f"{merging.path} merges tokens and was made for {merging.tokens} of them, not {tokens.shape[1]}; put the "
            "steps input-size and depth-pruning before tome, and give images of the model's size"
        )


def _take_apart(tokens: Tensor, *, sized: bool) -> tuple[Tensor, Tensor]:
    if sized:
        return tokens[..., :-1], tokens[..., -1:]
    return tokens, torch.ones_like(tokens[..., :1])


def attend(parts: Parts, tokens: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the output of a block's attention, and its keys averaged over heads, ``(batch, tokens, head_dim)``."""
    query, key, value = parts.heads(tokens)
    bias = None if sizes is None else attention_bias(sizes).to(query.dtype)
    dropout = parts.dropout if parts.attention.training else 0.0
    joined = scaled_dot_product_attention(query, key, value, bias, dropout_p=dropout, scale=parts.scale)
    return parts.output(joined.transpose(1, 2).flatten(2)), key.mean(dim=1)


def plan_blocks(layout: Layout, merges: Sequence[int], *, proportional: bool) -> list[Merging]:
    """Return what each block of a model does: those from the first that merges to the last one change."""
    rows, columns = (size // patch for size, patch in zip(layout.image_size, layout.patch_size, strict=True))
    whole = left = rows * columns + layout.prefix_tokens
    first = next((index for index, r in enumerate(merges) if r), len(merges))
    plans = []
    for index, (block, r) in enumerate(zip(layout.blocks, merges, strict=True)):
        if index >= first:
            last = index == len(merges) - 1
            plans.append(Merging(block.path, r, left, layout.prefix_tokens, sized=index > first, carries=not last,
                                 restore=whole if last else 0, proportional=proportional))  # fmt: skip
        left -= r
    return plans


def install(model: nn.Module, plans: Sequence[Merging]) -> nn.Module:
    """Have the blocks of ``model`` merge tokens, in place.

    Raises:
        UnsupportedModelError: a block's parts are not known, or do more than project and attend.
    """
    blocks = [model.get_submodule(plan.path) for plan in plans]
    for plan, block in zip(plans, blocks, strict=True):
        parts_of(block, plan.path)  # every refusal comes before the first change
    for plan, block in zip(plans, blocks, strict=True):
        if not isinstance(block, MergingBlock):
            block.__class__ = _merging_class(type(block))  # type: ignore[arg-type]  # classes are hashable
        block.merging = plan  # type: ignore[assignment]  # plain data, no module
    return model


@cache
def _merging_class(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"Merging{kind.__name__}", (MergingBlock, kind), {"__module__": __name__})


def _blank(kind: type[nn.Module]) -> nn.Module:
    made = _merging_class(kind)  # type: ignore[arg-type]  # classes are hashable
    return made.__new__(made)


def installed(model: nn.Module) -> list[Merging]:
    """Return what the blocks of a model that merge do."""
    return [module.merging for module in model.modules() if isinstance(module, MergingBlock)]
