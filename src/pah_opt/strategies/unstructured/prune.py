"""Set the lowest-scored weights of linear layers to zero: globally, per role, layer or row, or by an n:m pattern."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from pah_opt.models.selection import by_role
from pah_opt.strategies.unstructured.cut import cut_mask, find_cut
from pah_opt.strategies.unstructured.masking import group_mask, row_mask, zero_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn

    from pah_opt.layout import Layout
    from pah_opt.strategies.unstructured.config import NmPattern, Scope

    Score = Callable[[str, slice], Tensor]
    # Gives the scores of some rows of a layer by its path: float32, shaped like them, non-negative; the lowest go.

ALL = slice(None)
"""Every row of a layer."""
PART = 1 << 18
"""Weights that are scored at once: their scores stay in a processor's cache, and memory is not asked for anew."""


def magnitude(layers: Mapping[str, nn.Linear]) -> Score:
    """Score weights by their absolute value (their squares order them the same way)."""
    return lambda path, rows: layers[path].weight.detach()[rows].abs().float()


@torch.no_grad()
def prune(
    layers: Mapping[str, nn.Linear], score: Score, zeros: float, scope: Scope, layout: Layout,
    pattern: NmPattern | None = None,
) -> None:  # fmt: skip
    """Set weights to zero in place; nothing else is kept.

    Args:
        layers: what is pruned.
        score: called several times per layer when layers compete; must give the same scores each time.
        zeros: share of weights that are zero afterwards; reached to the weight in each scope.
        scope: where weights compete.
        layout: of the model; says which layers do the same in every block, for the scope ``isomorphic``.
        pattern: n:m groups instead; then ``zeros`` and ``scope`` are not looked at.
    """
    if scope in ("global", "isomorphic") and pattern is None:
        for pool in [list(layers)] if scope == "global" else by_role(layout, layers):
            _prune_together({path: layers[path] for path in pool}, score, zeros)
        return
    for path, layer in layers.items():
        layer.weight.masked_fill_(layer_mask(score(path, ALL), zeros, scope, pattern), 0)


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
    for path, rows, drop in global_masks(layers, score, zeros):
        layers[path].weight[rows].masked_fill_(drop, 0)


def global_masks(layers: Mapping[str, nn.Linear], score: Score, zeros: float) -> Iterator[tuple[str, slice, Tensor]]:
    """Yield, part by part, which weights are among the lowest-scored of all layers, exactly ``zeros`` of them together.

    Yields:
        A path, rows of that layer, and bool for each of their weights.
    """
    count = zero_count(zeros, sum(layer.weight.numel() for layer in layers.values()))
    places = [(path, rows) for path, layer in layers.items() for rows in parts(*layer.weight.shape)]
    cut = find_cut([partial(score, *place) for place in places], count)
    ties = cut.ties
    for path, rows in places:
        drop, ties = cut_mask(score(path, rows), cut, ties)
        yield path, rows, drop


def parts(rows: int, columns: int) -> list[slice]:
    """Cut a matrix into groups of rows of about :data:`PART` weights.

    >>> parts(3, 1 << 17)
    [slice(0, 2, None), slice(2, 3, None)]
    """
    step = max(1, PART // columns)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
