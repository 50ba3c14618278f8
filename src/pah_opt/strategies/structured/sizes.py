"""How large a model with given widths is, and which widths are allowed: integers only, no tensors.

A :class:`BlockShape` says how wide one block is; :class:`Sizes` says what a list of them costs in parameters,
multiply-accumulates and bytes. Everything a plan needs follows from these, on the ``meta`` device too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from pah_opt.layout import Block, Layout

Kind = Literal["heads", "head_dims", "mlp"]
Figure = Literal["params", "macs", "size"]


@dataclass(frozen=True)
class BlockShape:
    """Widths of one block.

    Args:
        heads: number of attention heads.
        head_dim: width of a query/key head.
        value_dim: width of a value head.
        mlp: hidden width of the feed-forward network.
    """

    heads: int
    head_dim: int
    value_dim: int
    mlp: int

    def count(self, kind: Kind) -> int:
        """Return how many units of a kind there are."""
        return {"heads": self.heads, "head_dims": self.head_dim, "mlp": self.mlp}[kind]

    def having(self, kind: Kind, count: int) -> BlockShape:
        """Return the shape with another number of units of a kind.

        Query/key and value heads keep the difference in width that they have.
        """
        if kind == "head_dims":
            return replace(self, head_dim=count, value_dim=max(1, self.value_dim - (self.head_dim - count)))
        return replace(self, heads=count) if kind == "heads" else replace(self, mlp=count)


Shapes = tuple[BlockShape, ...]


def shapes_of(layout: Layout) -> Shapes:
    """Return the widths of every block."""
    return tuple(
        BlockShape(b.attention.num_heads, b.attention.head_dim, b.attention.value_dim, b.mlp.width)
        for b in layout.blocks
    )


@dataclass(frozen=True)
class Widths:
    """Which widths are allowed.

    Args:
        align: widths of projections and feed-forward networks are multiples of this.
        min_mlp: least width of a feed-forward network.
    """

    align: int = 1
    min_mlp: int = 1

    def multiple(self, kind: Kind, shape: BlockShape) -> int:
        """Return what the number of units of a kind must be a multiple of."""
        if kind == "mlp":
            return self.align
        if kind == "heads":
            return self.align // math.gcd(self.align, math.gcd(shape.head_dim, shape.value_dim))
        return self.align // math.gcd(self.align, shape.heads)

    def least(self, kind: Kind, shape: BlockShape) -> int:
        """Return the smallest allowed number of units: at least one head, one dimension, ``min_mlp`` units."""
        multiple = self.multiple(kind, shape)
        wanted = self.min_mlp if kind == "mlp" else 1
        return min(shape.count(kind), multiple * math.ceil(wanted / multiple))

    def nearest(self, kind: Kind, shape: BlockShape, wanted: float) -> int:
        """Return the allowed number of units nearest to ``wanted``: a multiple, or all there are."""
        count, multiple = shape.count(kind), self.multiple(kind, shape)
        rounded = multiple * math.floor(wanted / multiple + 0.5)
        nearer = count if abs(count - wanted) < abs(rounded - wanted) else rounded
        return max(self.least(kind, shape), min(count, nearer))

    def kept(self, kind: Kind, shape: BlockShape, ratio: float) -> int:
        """Return how many units stay when a share ``ratio`` goes; a share above 0 removes something where it can."""
        count, multiple = shape.count(kind), self.multiple(kind, shape)
        kept = self.nearest(kind, shape, count * (1.0 - ratio))
        if ratio > 0.0 and kept == count:
            below = (count - 1) // multiple * multiple
            return below if below >= self.least(kind, shape) else count
        return kept

    def step(self, kind: Kind, shape: BlockShape, direction: int) -> int | None:
        """Return the next allowed number of units up (1) or down (-1) from ``shape``, or None at the end."""
        multiple, count = self.multiple(kind, shape), shape.count(kind)
        following = multiple * (count // multiple + 1) if direction > 0 else multiple * ((count - 1) // multiple)
        return following if following >= max(1, self.least(kind, shape)) else None


@dataclass(frozen=True)
class Sizes:
    """What a model costs as a function of its blocks' widths.

    Args:
        layout: of the dense model.
        fixed: params, macs and bytes outside the blocks' projections and feed-forward networks.
        element_bytes: bytes of one weight.
        biased: for each block, whether query/key/value and the feed-forward network have biases.
    """

    layout: Layout
    fixed: dict[Figure, int]
    element_bytes: int
    biased: tuple[tuple[bool, bool], ...]

    @classmethod
    def of(cls, model: nn.Module, layout: Layout) -> Sizes:
        """Count a model; it may be on the ``meta`` device."""
        biased = tuple((_has_bias(model, b.attention.query), _has_bias(model, b.mlp.fc1)) for b in layout.blocks)
        element = next(model.parameters()).element_size()
        blank = cls(layout, {"params": 0, "macs": 0, "size": 0}, element, biased)
        inside = blank.totals(shapes_of(layout))
        parameters = {id(p): p for p in model.parameters()}.values()
        stored = [*parameters, *{id(b): b for b in model.buffers()}.values()]
        whole: dict[Figure, int] = {
            "params": sum(p.numel() for p in parameters),
            "macs": inside["macs"] + _embedding_macs(layout) + _classifier_macs(model, layout),
            "size": sum(t.numel() * t.element_size() for t in stored),
        }
        return replace(blank, fixed={figure: whole[figure] - inside[figure] for figure in whole})

    @property
    def tokens(self) -> int:
        """Tokens per image."""
        (height, width), (rows, columns) = self.layout.image_size, self.layout.patch_size
        return self.layout.prefix_tokens + (height // rows) * (width // columns)

    def totals(self, shapes: Sequence[BlockShape]) -> dict[Figure, int]:
        """Return params, macs and bytes of a model with these blocks."""
        params = sum(self._params(i, shape) for i, shape in enumerate(shapes))
        macs = sum(self._macs(self.layout.blocks[i], shape) for i, shape in enumerate(shapes))
        inside: dict[Figure, int] = {"params": params, "macs": macs, "size": params * self.element_bytes}
        return {figure: inside[figure] + self.fixed[figure] for figure in inside}

    def cost(self, figure: Figure, index: int, shape: BlockShape, kind: Kind) -> int:
        """Return what one unit of a kind costs in block ``index``."""
        fewer = shape.having(kind, shape.count(kind) - 1)
        if figure == "macs":
            return self._macs(self.layout.blocks[index], shape) - self._macs(self.layout.blocks[index], fewer)
        return self._params(index, shape) - self._params(index, fewer)

    def block_macs(self, index: int) -> int:
        """Return the multiply-accumulates of block ``index`` as it is, for one image."""
        return self._macs(self.layout.blocks[index], shapes_of(self.layout)[index])

    def _params(self, index: int, shape: BlockShape) -> int:
        hidden, (qkv_bias, mlp_bias) = self.layout.hidden_size, self.biased[index]
        rows, value_rows = shape.heads * shape.head_dim, shape.heads * shape.value_dim
        layers = 1 + (self.layout.blocks[index].mlp.gate is not None)
        attention = (2 * rows + value_rows) * (hidden + qkv_bias) + value_rows * hidden
        return attention + shape.mlp * (layers * (hidden + mlp_bias) + hidden)

    def _macs(self, block: Block, shape: BlockShape) -> int:
        hidden, tokens = self.layout.hidden_size, self.tokens
        rows, value_rows = shape.heads * shape.head_dim, shape.heads * shape.value_dim
        layers = 2 + (block.mlp.gate is not None)
        per_token = hidden * (2 * rows + 2 * value_rows + layers * shape.mlp) + tokens * (rows + value_rows)
        return tokens * per_token


def _has_bias(model: nn.Module, path: str) -> bool:
    return getattr(model.get_submodule(path), "bias", None) is not None


def _embedding_macs(layout: Layout) -> int:
    (height, width), (rows, columns) = layout.image_size, layout.patch_size
    return (height // rows) * (width // columns) * layout.hidden_size * layout.in_channels * rows * columns


def _classifier_macs(model: nn.Module, layout: Layout) -> int:
    layers = [model.get_submodule(path) for path in layout.classifiers]
    return sum(int(getattr(layer, "weight").numel()) for layer in layers)  # noqa: B009  # typed as a Module
