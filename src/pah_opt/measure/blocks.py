"""A map of a model, block by block."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from torch import Tensor, nn

from pah_opt.measure.model_report import BlockFigures
from pah_opt.measure.tensors import count_nonzero, is_packed, linear_layers, linear_shape, storage_type

if TYPE_CHECKING:
    from pah_opt.layout import Block, Layout


def block_map(model: nn.Module, layout: Layout | None) -> tuple[BlockFigures, ...]:
    """Describe every block; nothing for a model whose blocks can no longer be found."""
    return () if layout is None else tuple(_describe(model.get_submodule(block.path), block) for block in layout.blocks)


def _describe(module: nn.Module, block: Block) -> BlockFigures:
    weights = list(_weights(module))
    return BlockFigures(
        path=block.path, num_heads=block.attention.num_heads, head_dim=block.attention.head_dim,
        mlp_width=block.mlp.width, dtypes=dict(Counter(storage_type(weight) for weight, _ in weights).most_common()),
        sparsity_pct=_sparsity(weights),
    )  # fmt: skip


def _weights(module: nn.Module) -> list[tuple[Tensor, int]]:
    """Return the linear weights of a block, each with the number of values it stands for."""
    found = []
    for layer in linear_layers(module).values():
        weight = layer.weight
        if isinstance(weight, Tensor):
            out, into = linear_shape(layer)
            found.append((weight, out * into if is_packed(weight) else weight.numel()))
    native = (part.in_proj_weight for part in module.modules() if isinstance(part, nn.MultiheadAttention))
    return found + [(weight, weight.numel()) for weight in native if weight is not None]


def _sparsity(weights: list[tuple[Tensor, int]]) -> float | None:
    total = sum(count for _, count in weights)
    if not total or any(weight.device.type == "meta" for weight, _ in weights):
        return None
    return 100.0 * (1.0 - sum(count_nonzero(weight) for weight, _ in weights) / total)
