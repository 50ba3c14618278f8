"""Pruning a weight matrix as a whole: which weights go and what the others become are settled together (ADMM).

For a layer ``y = W x`` and the second moment ``H`` of its inputs, the zeros should cost little of
``tr((V - W) H (V - W)^T)``. Two copies of the weights take turns: one is free and minimises that cost, the other has
the zeros; each is drawn to the other, and what they still disagree about is summed up, until they agree. Zeros grow in
number over the first half of the rounds, so that none is chosen before its neighbours have made up for it. Unlike
Optimal Brain Surgeon, which visits columns left to right, every weight that stays makes up for every weight that goes.

References:
    Boza, Fast and effective weight update for pruned large language models, https://arxiv.org/abs/2401.02938.
    Boyd et al., Distributed optimization and statistical learning via the alternating direction method of multipliers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pah_opt.errors import DataError

Drop = Callable[[Tensor, float], Tensor]
"""Takes what each weight is worth, ``(rows, columns)``, non-negative, and the share of the zeros that is due, above 0
to 1; returns which go (bool, the same shape). Weights that go in any case are worth 0."""

PENALTY = 1.0
"""How strongly the copies are drawn to each other, beside a Hessian with ones on its diagonal. Between 0.3 and 1 the
results differ by a tenth; 1 was the better one in most layers of a ViT-S, at every sparsity."""


class System(NamedTuple):
    """A layer's inputs, made ready once for all layers that share them.

    Args:
        moment: the dampened Hessian scaled to ones on its diagonal, ``(columns, columns)``.
        length: root of the dampened Hessian's diagonal, ``(columns,)``.
        inverse: of ``moment`` with the penalty added to its diagonal.
    """

    moment: Tensor
    length: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, hessian: Tensor, dampening: float) -> System:
        """Make it of a Hessian, symmetric positive semi-definite, ``(columns, columns)``, float32.

        Args:
            hessian: of the inputs; left alone.
            dampening: share of the mean diagonal that is added to the diagonal.

        Raises:
            DataError: the Hessian is not one.
        """
        moment, length = _with_ones(hessian, dampening)
        identity = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
        return cls(moment, length, _inverse(moment + PENALTY * identity))


def prune_jointly(weight: Tensor, system: System, drop: Drop, *, rounds: int, held: Tensor) -> Tensor:
    """Drop weights and update the others so that the layer's outputs change least.

    Args:
        weight: ``(rows, columns)``, float32.
        system: of its inputs.
        drop: says which weights go.
        rounds: how often the copies take turns.
        held: weights that go in any case, bool, ``(rows, columns)``.

    Returns:
        The new weights; dropped ones are exactly zero.
    """
    free = weight * system.length
    wanted, dual, going = free @ system.moment, torch.zeros_like(free), held
    for share in _shares(rounds):
        agreed = free + dual
        if share is not None:
            going = held | drop(agreed.square().masked_fill(held, 0), share)
        sparse = agreed.masked_fill(going, 0)
        dual = agreed - sparse
        free = (wanted + PENALTY * (sparse - dual)) @ system.inverse
    return (free + dual).masked_fill(going, 0) / system.length


def _shares(rounds: int) -> list[float | None]:
    """Return for each round the share of the zeros that is chosen in it: a cubic to 1, then None: they stay.

    >>> _shares(4)
    [0.875, 1.0, None, None]
    """
    rising = max(rounds // 2, 1)
    return [1 - (1 - (number + 1) / rising) ** 3 if number < rising else None for number in range(rounds)]


def _with_ones(hessian: Tensor, dampening: float) -> tuple[Tensor, Tensor]:
    """Return a dampened Hessian scaled to ones on its diagonal, and the root of the diagonal, ``(columns,)``."""
    added = (dampening * hessian.diagonal().mean()).clamp_min(torch.finfo(hessian.dtype).tiny)
    length = (hessian.diagonal().clamp_min(0) + added).sqrt()
    moment = hessian / length / length[:, None]
    return moment.fill_diagonal_(1.0), length


def _inverse(matrix: Tensor) -> Tensor:
    lower, failed = torch.linalg.cholesky_ex(matrix)
    if failed or not torch.isfinite(lower).all():
        raise DataError(
            "the second moment of a layer's inputs is not one (not finite, or not positive); check that the "
            "calibration images are real, different images"
        )
    return torch.cholesky_inverse(lower)
