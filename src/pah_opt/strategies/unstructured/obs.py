"""Optimal Brain Surgeon on a weight matrix, column by column (SparseGPT): drop weights, let the rest make up for them.

For a layer ``y = W x`` and the second moment ``H`` of its inputs, dropping weights costs ``tr(dW H dW^T)``. Columns are
visited left to right; an error made in one column is spread over the columns to its right along the inverse of ``H``
restricted to them. The upper Cholesky factor of ``H^-1`` holds all those restricted inverses at once.

References:
    Frantar and Alistarh, SparseGPT, https://arxiv.org/abs/2301.00774.
    Hassibi and Stork, Optimal Brain Surgeon, NeurIPS 1992.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pah_opt.errors import DataError

Choose = Callable[[Tensor, int], Tensor]
"""Takes scores ``(rows, columns)`` and the first column's index, returns which go (bool, the same shape).

Scores are non-negative; those of weights that go in any case are 0."""

DAMPENING_STEPS = 6
"""How often the dampening is made ten times larger before a Hessian is given up."""


class Factor(NamedTuple):
    """The upper Cholesky factor ``U`` of an inverse Hessian ``U^T U``, and the dampening that made it exist."""

    upper: Tensor
    dampening: float


def inverse_factor(hessian: Tensor, dampening: float) -> Factor:
    """Factor the inverse of a Hessian, with more dampening where it is too close to singular.

    Args:
        hessian: symmetric positive semi-definite, ``(columns, columns)``, float32.
        dampening: share of the mean diagonal that is added to the diagonal.

    Raises:
        DataError: no dampening up to a million times the given one makes it invertible.
    """
    scale = hessian.diagonal().mean().clamp_min(torch.finfo(hessian.dtype).tiny)
    for step in range(DAMPENING_STEPS + 1):
        used = dampening * 10**step
        damped = hessian + used * scale * torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device)
        upper = _upper_of_inverse(damped)
        if upper is not None:
            return Factor(upper, used)
    raise DataError(
        f"the second moment of a layer's inputs cannot be inverted, even with a dampening of {used:g}; "
        "check that the calibration images are real, different images"
    )


def _upper_of_inverse(matrix: Tensor) -> Tensor | None:
    lower, failed = torch.linalg.cholesky_ex(matrix)
    if failed or not torch.isfinite(lower).all():
        return None
    upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    return None if failed or not torch.isfinite(upper).all() else upper


def towards_dense(weight: Tensor, hessian: Tensor, error: Tensor, ridge: float) -> Tensor:
    """Return the weights that come closest to the dense model's outputs on inputs that earlier changes have moved.

    With inputs ``x``, dense inputs ``x + e`` and dense weights ``W``, they minimise
    ``E|W (x + e) - V x|^2 + r |V - W|^2``, so that ``V = W + W E[e x^T] (E[x x^T] + r I)^-1``.

    Args:
        weight: ``(rows, columns)``.
        hessian: ``E[x x^T]``, ``(columns, columns)``.
        error: ``E[e x^T]``, ``(columns, columns)``.
        ridge: ``r`` as a share of the Hessian's mean diagonal; with too little, few images are learned by heart.
    """
    upper = inverse_factor(hessian, ridge).upper
    return weight + (weight @ error) @ upper.T @ upper


def saliency(weight: Tensor, upper: Tensor) -> Tensor:
    """Return what dropping each weight costs once the columns to its right have made up for it, shaped like ``weight``.

    Args:
        weight: ``(rows, columns)``.
        upper: the factor of those columns, ``(columns, columns)``.
    """
    return (weight / upper.diagonal()).square()


def prune_columns(
    weight: Tensor, upper: Tensor, choose: Choose, *, block: int, group: int, held: Tensor | None = None
) -> Tensor:
    """Drop weights and update the others so that the layer's outputs change least.

    Args:
        weight: ``(rows, columns)``, float32.
        upper: from :func:`inverse_factor`, ``(columns, columns)``.
        choose: says which weights of the next ``group`` columns go.
        block: columns that are updated together before the rest of the matrix is; a multiple of ``group``.
        group: columns that are chosen together; a whole number of them makes a block.
        held: weights that go in any case, bool; by default those that are zero already.

    Returns:
        The new weights; dropped ones are exactly zero.
    """
    weight, held = weight.clone(), weight == 0 if held is None else held
    for start in range(0, weight.shape[1], block):
        stop = min(start + block, weight.shape[1])
        own = slice(start, stop)
        errors = _prune_block(weight[:, own], held[:, own], upper[own, own], partial(_shifted, choose, start), group)
        weight[:, stop:] -= errors @ upper[start:stop, stop:]
    return weight


def _shifted(choose: Choose, start: int, scores: Tensor, column: int) -> Tensor:
    return choose(scores, start + column)


def _prune_block(weight: Tensor, held: Tensor, upper: Tensor, choose: Choose, group: int) -> Tensor:
    """Prune a block of columns in place, ``held`` ones in any case; return each column's scaled error, same shape."""
    # Columns are walked one by one: as rows of the transpose they are contiguous, which is several times faster.
    columns = weight.T.contiguous()
    drop = held.T.contiguous()
    errors = torch.zeros_like(columns)
    for column in range(len(columns)):
        if column % group == 0:
            chosen = slice(column, column + group)
            scores = saliency(columns[chosen].T, upper[chosen, chosen]).masked_fill(drop[chosen].T, 0)
            drop[chosen] |= choose(scores, column).T
        errors[column] = columns[column] * drop[column] / upper[column, column]
        columns[column:] -= torch.outer(upper[column, column:], errors[column])
    # Rounding leaves something near zero where the update should give exactly zero.
    weight.copy_(columns.masked_fill_(drop, 0).T)
    return errors.T
