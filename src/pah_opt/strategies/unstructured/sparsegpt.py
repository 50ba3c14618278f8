"""SparseGPT on a Vision Transformer: prune block by block, the weights that stay make up for the ones that go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.strategies.unstructured.allocation import allocate
from pah_opt.strategies.unstructured.blockwise import change_blockwise
from pah_opt.strategies.unstructured.masking import group_mask
from pah_opt.strategies.unstructured.obs import inverse_factor, prune_columns
from pah_opt.strategies.unstructured.prune import smallest_mask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from pah_opt.models.calibration import Covariance
    from pah_opt.optimizer import Context
    from pah_opt.strategies.unstructured.allocation import Allocation
    from pah_opt.strategies.unstructured.config import NmPattern, SparseGptConfig
    from pah_opt.strategies.unstructured.obs import Choose


def sparsegpt(model: nn.Module, layers: Mapping[str, nn.Linear], config: SparseGptConfig, context: Context) -> None:
    """Prune ``layers`` in place and update what stays; weights that are zero already stay zero.

    Reports layers that needed more dampening than asked for.
    """
    harder: dict[str, float] = {}
    shares = allocate(model, layers, config, context)

    def change(sharing: Mapping[str, nn.Linear], seen: Covariance) -> None:
        factor = inverse_factor(hessian(seen, centred=_all_biased(sharing)), config.dampening)
        for path, layer in sharing.items():
            choose = choose_pattern(config.nm) if config.nm else choose_share(path, layer, shares)
            repair(layer, seen, factor.upper, choose, config)
            if factor.dampening != config.dampening:
                harder[path] = factor.dampening

    change_blockwise(model, layers, context, config, change)
    if harder:
        context.record("dampening_raised", harder)


def hessian(seen: Covariance, *, centred: bool) -> Tensor:
    """Return the second moment of a layer's inputs, float32, about their mean when the bias can take the mean up."""
    return (seen.matrix if centred else seen.second_moment).float()


def repair(layer: nn.Linear, seen: Covariance, upper: Tensor, choose: Choose, config: SparseGptConfig) -> None:
    """Prune one layer in place; its bias takes up the change of the outputs' mean."""
    old = layer.weight.detach().float()
    group = config.nm.group if config.nm else config.block_size
    new = prune_columns(old, upper, choose, block=_multiple(config.block_size, group), group=group)
    if layer.bias is not None:
        layer.bias.add_((old - new).to(seen.mean.dtype) @ seen.mean)
    # Last, because ``old`` shares its memory with a float32 weight.
    layer.weight.copy_(new)


def choose_pattern(pattern: NmPattern) -> Choose:
    """Choose all but the dearest n of every m columns."""
    return lambda scores, _column: group_mask(scores, pattern.kept, pattern.group)


def choose_share(path: str, layer: nn.Linear, shares: Allocation) -> Choose:
    """Choose the cheapest weights of each group of columns, so that the layer ends with exactly its count of zeros.

    Where it is known how much errors in the layer's outputs matter, that weighs its rows.
    """
    columns, count = layer.in_features, shares.counts[path]
    rows = row_weights(shares.outputs[path]) if path in shares.outputs else torch.ones(1, device=layer.weight.device)

    def choose(scores: Tensor, column: int) -> Tensor:
        end = column + scores.shape[1]
        return smallest_mask(scores * rows[:, None], end * count // columns - column * count // columns)

    return choose


def row_weights(outputs: Tensor) -> Tensor:
    """Return weights of a layer's rows from the squared loss gradients by its outputs, ``(out,)``.

    The root of the squares, not the squares themselves: measured, it gave the smaller divergence of the logits at
    every sparsity; a gradient seen on few images is too noisy to be trusted fully.
    """
    floor = 1e-3 * outputs.mean()
    return (outputs + floor).sqrt()


def _all_biased(layers: Mapping[str, nn.Linear]) -> bool:
    return all(layer.bias is not None for layer in layers.values())


def _multiple(block: int, group: int) -> int:
    return max(block // group, 1) * group
