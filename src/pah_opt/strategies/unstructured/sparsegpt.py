"""SparseGPT on a Vision Transformer: prune block by block, the weights that stay make up for the ones that go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.strategies.unstructured.allocation import allocate
from pah_opt.strategies.unstructured.blockwise import change_in_order
from pah_opt.strategies.unstructured.masking import group_mask
from pah_opt.strategies.unstructured.obs import inverse_factor, prune_columns, saliency, towards_dense
from pah_opt.strategies.unstructured.prune import smallest_mask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from pah_opt.optimizer import Context
    from pah_opt.strategies.unstructured.allocation import Allocation
    from pah_opt.strategies.unstructured.config import NmPattern, SparseGptConfig
    from pah_opt.strategies.unstructured.moments import Seen
    from pah_opt.strategies.unstructured.obs import Choose


FEEDBACK_RIDGE = 0.3
"""See :func:`~pah_opt.strategies.unstructured.obs.towards_dense`."""


def sparsegpt(model: nn.Module, layers: Mapping[str, nn.Linear], config: SparseGptConfig, context: Context) -> None:
    """Prune ``layers`` in place and update what stays; weights that are zero already stay zero.

    Reports layers that needed more dampening than asked for.
    """
    harder: dict[str, float] = {}
    shares = allocate(model, layers, config, context)

    def change(sharing: Mapping[str, nn.Linear], seen: Seen) -> None:
        centred = all(layer.bias is not None for layer in sharing.values())
        factor = inverse_factor(seen.hessian(centred=centred), config.dampening)
        for path, layer in sharing.items():
            target = target_weight(layer, seen, centred=centred)
            choose = choose_pattern(config.nm) if config.nm else choose_share(path, target, factor.upper, shares)
            repair(layer, target, seen, factor.upper, choose, config)
            if factor.dampening != config.dampening:
                harder[path] = factor.dampening

    change_in_order(model, layers, context, config, change, paired=config.match_dense)
    if harder:
        context.record("dampening_raised", harder)


def target_weight(layer: nn.Linear, seen: Seen, *, centred: bool) -> Tensor:
    """Return the weights to prune, float32: the layer's own, or what makes up for the errors in its inputs."""
    weight, error = layer.weight.detach().float(), seen.error_moment(centred=centred)
    if error is None:
        return weight
    return towards_dense(weight, seen.hessian(centred=centred), error, FEEDBACK_RIDGE)


def repair(
    layer: nn.Linear, target: Tensor, seen: Seen, upper: Tensor, choose: Choose, config: SparseGptConfig
) -> None:
    """Prune ``target`` into one layer in place; its bias takes up the change of the outputs' mean."""
    old = layer.weight.detach().float()
    group = config.nm.group if config.nm else config.block_size
    block = max(config.block_size // group, 1) * group
    new = prune_columns(target, upper, choose, block=block, group=group, held=old == 0)
    if layer.bias is not None:
        wanted, got = (w.to(seen.dense_mean.dtype) @ m for w, m in ((old, seen.dense_mean), (new, seen.inputs.mean)))
        layer.bias.add_(wanted - got)
    # Last, because ``old`` shares its memory with a float32 weight.
    layer.weight.copy_(new)


def choose_pattern(pattern: NmPattern) -> Choose:
    """Choose all but the dearest n of every m columns."""
    return lambda scores, _column: group_mask(scores, pattern.kept, pattern.group)


def choose_share(path: str, target: Tensor, upper: Tensor, shares: Allocation) -> Choose:
    """Choose the cheapest weights of each group of columns, so that the layer ends with exactly its count of zeros.

    A first estimate of all costs decides how many go from each group. Where it is known how much errors in the layer's
    outputs matter, that weighs its rows.
    """
    known = path in shares.outputs
    rows = row_weights(shares.outputs[path])[:, None] if known else torch.ones(1, device=target.device)
    estimate = smallest_mask(saliency(target, upper) * rows, shares.counts[path])
    before = [0, *estimate.sum(dim=0).cumsum(dim=0).tolist()]

    def choose(scores: Tensor, column: int) -> Tensor:
        return smallest_mask(scores * rows, before[column + scores.shape[1]] - before[column])

    return choose


def row_weights(outputs: Tensor) -> Tensor:
    """Return weights of a layer's rows from the squared loss gradients by its outputs, ``(out,)``.

    The root of the squares, not the squares themselves: measured, it gave the smaller divergence of the logits at
    every sparsity; a gradient seen on few images is too noisy to be trusted fully.
    """
    floor = 1e-3 * outputs.mean()
    return (outputs + floor).sqrt()
