"""Meet a target with whole blocks or embedding channels: what each choice would keep, and which comes nearest."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, cast

from pah_opt.errors import RecipeError
from pah_opt.strategies.structured.allocation import TOLERANCE
from pah_opt.strategies.structured.sizes import Sizes, shapes_of
from pah_opt.strategies.structured.stream import along_embedding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn

    from pah_opt.layout import Layout
    from pah_opt.strategies.structured.config import Target
    from pah_opt.strategies.structured.sizes import Figure


def nearest(target: Target, kept: Mapping[int, float], called: Callable[[int], str]) -> int:
    """Return the option that keeps the share nearest to the target.

    Args:
        target: how much to keep.
        kept: share of the target's figure that each option keeps.
        called: names an option in the message.

    Raises:
        RecipeError: none is within 2 %; the message names the nearest on either side.
    """
    best = min(kept, key=lambda option: abs(kept[option] - target.share), default=None)
    if best is not None and abs(kept[best] - target.share) <= TOLERANCE * target.share:
        return best
    ordered = sorted(kept, key=lambda option: kept[option])
    below = [option for option in ordered if kept[option] < target.share][-1:]
    above = [option for option in ordered if kept[option] >= target.share][:1]
    around = " and ".join(f"{kept[option]:.3f} ({called(option)})" for option in (*below, *above)) or "none"
    raise RecipeError(
        f"target: {{{target.figure}: {target.share}}} cannot be met within {TOLERANCE:.0%}; the nearest shares that "
        f"can be kept: {around}; ask for one of these, or meet the target by cutting heads and hidden units"
    )


def block_shares(model: nn.Module, layout: Layout, figure: str) -> list[float]:
    """Return which share of a model's ``params``, ``macs`` or bytes (``size``) each block has; ``meta`` models too."""
    sizes = Sizes.of(model, layout)
    whole = sizes.totals(shapes_of(layout))[cast("Figure", figure)]
    if figure == "macs":
        return [sizes.block_macs(index) / whole for index in range(len(layout.blocks))]
    blocks = [model.get_submodule(block.path) for block in layout.blocks]
    return [_amount(_tensors(block, figure), figure) / whole for block in blocks]


def shares_by_width(model: nn.Module, layout: Layout, figure: str, widths: Iterable[int]) -> dict[int, float]:
    """Return which share of a model's ``params``, ``macs`` or bytes is left at each width of the embedding.

    No parameter and no product runs along the embedding twice, so what runs along it falls in proportion.
    """
    along = _embedding_share(model, layout, figure)
    return {width: 1.0 - along * (1.0 - width / layout.hidden_size) for width in widths}


def _embedding_share(model: nn.Module, layout: Layout, figure: str) -> float:
    """Leave out the scores of the attention, biases inside the blocks, and buffers."""
    sizes = Sizes.of(model, layout)
    shapes = shapes_of(layout)
    whole = sizes.totals(shapes)[cast("Figure", figure)]
    if figure == "macs":
        scores = sum(shape.heads * (shape.head_dim + shape.value_dim) for shape in shapes) * sizes.tokens**2
        return 1.0 - scores / whole
    return _amount(along_embedding(model, layout), figure) / whole


def _tensors(block: nn.Module, figure: str) -> Iterable[Tensor]:
    return block.parameters() if figure == "params" else chain(block.parameters(), block.buffers())


def _amount(tensors: Iterable[Tensor], figure: str) -> int:
    return sum(tensor.numel() * (tensor.element_size() if figure == "size" else 1) for tensor in tensors)
