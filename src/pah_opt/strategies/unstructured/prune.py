"""Set the lowest-scored weights of linear layers to zero: globally, per layer, per row, or by an n:m pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.strategies.unstructured.cut import cut_mask, find_cut
from pah_opt.strategies.unstructured.masking import group_mask, row_mask, zero_count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from pah_opt.strategies.unstructured.config import NmPattern, Scope

    Score = Callable[[str], Tensor]
    # Gives a layer's scores by its path: float32, shaped like the weight, non-negative; the lowest go.


def magnitude(layers: Mapping[str, nn.Linear]) -> Score:
    """Score weights by their absolute value (their squares order them the same way)."""
    return lambda path: layers[path].weight.detach().abs().float()


@torch.no_grad()
def prune(
    layers: Mapping[str, nn.Linear], score: Score, zeros: float, scope: Scope, pattern: NmPattern | None = None
) -> None:
    """Set weights to zero in place; nothing else is kept.

    Args:
        layers: what is pruned.
        score: called several times per layer when ``scope`` is ``global``; must give the same scores each time.
        zeros: share of weights that are zero afterwards; reached to the weight in each scope.
        scope: where weights compete.
        pattern: n:m groups instead; then ``zeros`` and ``scope`` are not looked at.
    """
    if scope == "global" and pattern is None:
        _prune_together(layers, score, zeros)
        return
    for path, layer in layers.items():
        layer.weight.masked_fill_(layer_mask(score(path), zeros, scope, pattern), 0)


def layer_mask(scores: Tensor, zeros: float, scope: Scope, pattern: NmPattern | None) -> Tensor:
    """Return which weights of one layer go, bool, shaped like ``scores`` ``(rows, columns)``."""
    if pattern is not None:
        return group_mask(scores, pattern.kept, pattern.group)
    count = zero_count(zeros, scores.numel())
    return row_mask(scores, count) if scope == "row" else smallest_mask(scores, count)


def smallest_mask(scores: Tensor, count: int) -> Tensor:
    """Return a mask of exactly the ``count`` smallest scores of one tensor; of equal scores the first go."""
    cut = find_cut([lambda: scores], count)
    return cut_mask(scores, cut, cut.ties)[0]


def _prune_together(layers: Mapping[str, nn.Linear], score: Score, zeros: float) -> None:
    count = zero_count(zeros, sum(layer.weight.numel() for layer in layers.values()))
    cut = find_cut([lambda path=path: score(path) for path in layers], count)  # type: ignore[misc]  # bound early
    ties = cut.ties
    for path, layer in layers.items():
        drop, ties = cut_mask(score(path), cut, ties)
        layer.weight.masked_fill_(drop, 0)
