"""Cut linear layers and swap modules: the mechanics of structured changes, with no opinion on what to cut.

Everything works on the ``meta`` device too and keeps dtype, device, ``requires_grad`` and the type of the layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


def keep_rows(layer: nn.Linear, rows: Sequence[int] | Tensor) -> None:
    """Keep only these outputs of a linear layer, in this order.

    Args:
        layer: changed in place; ``weight`` ``(out, in)`` becomes ``(len(rows), in)``, ``bias`` ``(len(rows),)``.
        rows: indices into ``out_features``.
    """
    index = _index(rows, layer.weight)
    layer.weight = _selected(layer.weight, 0, index)
    if layer.bias is not None:
        layer.bias = _selected(layer.bias, 0, index)
    layer.out_features = len(index)


def keep_columns(layer: nn.Linear, columns: Sequence[int] | Tensor) -> None:
    """Keep only these inputs of a linear layer, in this order.

    Args:
        layer: changed in place; ``weight`` ``(out, in)`` becomes ``(out, len(columns))``.
        columns: indices into ``in_features``.
    """
    index = _index(columns, layer.weight)
    layer.weight = _selected(layer.weight, 1, index)
    layer.in_features = len(index)


def _index(positions: Sequence[int] | Tensor, like: Tensor) -> Tensor:
    # A plan is made without values, but which positions stay is then still a plain list of integers.
    return torch.as_tensor(positions, dtype=torch.long, device=like.device)


def _selected(parameter: Tensor, dim: int, index: Tensor) -> nn.Parameter:
    kept = parameter.detach().index_select(dim, index).contiguous()
    return nn.Parameter(kept, requires_grad=parameter.requires_grad)


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` in the place of the submodule at ``path``; it takes over the training mode."""
    parent, _, name = path.rpartition(".")
    module.train(model.get_submodule(path).training)
    setattr(model.get_submodule(parent), name, module)


def remove_blocks(model: nn.Module, blocks_path: str, indices: Sequence[int]) -> None:
    """Remove transformer blocks; the ones that stay keep their order and are numbered anew.

    Args:
        model: changed in place.
        blocks_path: the ``nn.ModuleList`` or ``nn.Sequential`` that holds the blocks.
        indices: positions of the blocks to remove.
    """
    holder = model.get_submodule(blocks_path)
    kept = [module for position, module in enumerate(holder.children()) if position not in set(indices)]
    names = list(dict(holder.named_children()))
    for name in names:
        delattr(holder, name)
    # torchvision names its blocks encoder_layer_0 and so on; the first names are taken over in order.
    for name, module in zip(names, kept, strict=False):
        holder.add_module(name, module)
