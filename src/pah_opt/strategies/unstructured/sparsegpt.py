"""SparseGPT on a Vision Transformer: prune block by block, the weights that stay make up for the ones that go."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from pah_opt.strategies.unstructured.admm import System, prune_jointly
from pah_opt.strategies.unstructured.allocation import allocate
from pah_opt.strategies.unstructured.blockwise import change_in_order
from pah_opt.strategies.unstructured.masking import group_mask, zero_count
from pah_opt.strategies.unstructured.obs import inverse_factor, prune_columns, saliency, towards_dense
from pah_opt.strategies.unstructured.prune import smallest_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from pah_opt.optimizer import Context
    from pah_opt.strategies.unstructured.admm import Drop
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
        solver = (_by_admm if config.solver == "admm" else _by_obs)(seen.hessian(centred=centred), shares, config)
        for path, layer in sharing.items():
            target = target_weight(layer, seen, centred=centred)
            put(layer, solver.solve(path, target, layer.weight.detach() == 0), seen)
            if solver.dampening != config.dampening:
                harder[path] = solver.dampening

    change_in_order(model, layers, context, config, change, paired=config.match_dense)
    if harder:
        context.record("dampening_raised", harder)


def target_weight(layer: nn.Linear, seen: Seen, *, centred: bool) -> Tensor:
    """Return the weights to prune, float32: the layer's own, or what makes up for the errors in its inputs."""
    weight, error = layer.weight.detach().float(), seen.error_moment(centred=centred)
    if error is None:
        return weight
    return towards_dense(weight, seen.hessian(centred=centred), error, FEEDBACK_RIDGE)


def put(layer: nn.Linear, new: Tensor, seen: Seen) -> None:
    """Give one layer its new weight, in place; its bias takes up the change of the outputs' mean."""
    if layer.bias is not None:
        old = layer.weight.detach().float()
        wanted, got = (w.to(seen.dense_mean.dtype) @ m for w, m in ((old, seen.dense_mean), (new, seen.inputs.mean)))
        layer.bias.add_(wanted - got)
    # Last, because ``old`` shares its memory with a float32 weight.
    layer.weight.copy_(new)


class _Solver(NamedTuple):
    """Prunes every layer that reads the same inputs.

    Args:
        solve: takes a layer's path, the weight to prune and what goes in any case; returns the new weight.
        dampening: that was used.
    """

    solve: Callable[[str, Tensor, Tensor], Tensor]
    dampening: float


def _by_admm(hessian: Tensor, shares: Allocation, config: SparseGptConfig) -> _Solver:
    system = System.of(hessian, config.dampening)

    def solve(path: str, target: Tensor, held: Tensor) -> Tensor:
        drop = drop_pattern(config.nm) if config.nm else drop_share(path, target, shares)
        return prune_jointly(target, system, drop, rounds=config.rounds, held=held)

    return _Solver(solve, config.dampening)


def _by_obs(hessian: Tensor, shares: Allocation, config: SparseGptConfig) -> _Solver:
    upper, dampening = inverse_factor(hessian, config.dampening)
    group = config.nm.group if config.nm else config.block_size
    block = max(config.block_size // group, 1) * group

    def solve(path: str, target: Tensor, held: Tensor) -> Tensor:
        choose = choose_pattern(config.nm) if config.nm else choose_share(path, target, upper, shares)
        return prune_columns(target, upper, choose, block=block, group=group, held=held)

    return _Solver(solve, dampening)


def drop_pattern(pattern: NmPattern) -> Drop:
    """Drop all but the dearest n of every m columns, of those that are due the cheapest."""

    def drop(worth: Tensor, share: float) -> Tensor:
        pattern_mask = group_mask(worth, pattern.kept, pattern.group)
        due = zero_count(share, int(pattern_mask.sum()))
        return smallest_mask(worth.masked_fill(~pattern_mask, torch.inf), due)

    return drop


def drop_share(path: str, target: Tensor, shares: Allocation) -> Drop:
    """Drop the cheapest weights of the layer, in the end exactly its count of zeros."""
    rows = _known_rows(path, target, shares)
    return lambda worth, share: smallest_mask(worth * rows, zero_count(share, shares.counts[path]))


def choose_pattern(pattern: NmPattern) -> Choose:
    """Choose all but the dearest n of every m columns."""
    return lambda scores, _column: group_mask(scores, pattern.kept, pattern.group)


def choose_share(path: str, target: Tensor, upper: Tensor, shares: Allocation) -> Choose:
    """Choose the cheapest weights of each group of columns, so that the layer ends with exactly its count of zeros.

    A first estimate of all costs decides how many go from each group. Where it is known how much errors in the layer's
    outputs matter, that weighs its rows.
    """
    rows = _known_rows(path, target, shares)
    estimate = smallest_mask(saliency(target, upper) * rows, shares.counts[path])
    before = [0, *estimate.sum(dim=0).cumsum(dim=0).tolist()]

    def choose(scores: Tensor, column: int) -> Tensor:
        return smallest_mask(scores * rows, before[column + scores.shape[1]] - before[column])

    return choose


def _known_rows(path: str, target: Tensor, shares: Allocation) -> Tensor:
    """Return how much errors in each row matter, as far as it is known, to multiply costs with."""
    known = path in shares.outputs
    return row_weights(shares.outputs[path])[:, None] if known else torch.ones(1, device=target.device)


def row_weights(outputs: Tensor) -> Tensor:
    """Return weights of a layer's rows from the squared loss gradients by its outputs, ``(out,)``.

    The root of the squares, not the squares themselves: measured, it gave the smaller divergence of the logits at
    every sparsity; a gradient seen on few images is too noisy to be trusted fully.
    """
    floor = 1e-3 * outputs.mean()
    return (outputs + floor).sqrt()
