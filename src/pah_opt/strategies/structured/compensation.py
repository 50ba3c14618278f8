r"""The mathematics of removing inputs of a linear layer so that the remaining ones take over: pure tensor functions.

A linear layer :math:`y = W h + b` loses some of its inputs. With :math:`h` split into kept :math:`h_K` and removed
:math:`h_R`, mean :math:`\mu` and covariance :math:`C` over calibration data, the weights that keep :math:`y` closest
are

.. math::
    B = C_{RK} (C_{KK} + \lambda I)^{-1}, \qquad W' = W_K + W_R B, \qquad b' = b + W_R (\mu_R - B \mu_K).

What cannot be recovered is :math:`\operatorname{tr} W_R S W_R^\top` with the Schur complement
:math:`S = C_{RR} - C_{RK} C_{KK}^{-1} C_{KR} = ([C^{-1}]_{RR})^{-1}`: the criterion of the optimal brain surgeon, by
which :func:`eliminate` chooses what to remove.

References:
    Hassibi & Stork, Second order derivatives for network pruning: optimal brain surgeon (NeurIPS 1992);
    Kurtic et al., ZipLM (arXiv 2302.04089); He et al., Channel pruning (arXiv 1707.06168).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pah_opt.models.covariance import damped

RIDGE = 1e-3
"""Share of the mean variance that is added to every variance: keeps nearly collinear inputs from blowing up."""
DROPPED_BELOW = 0.75
"""Share of units still there below which those that are gone are dropped from the matrices of an elimination."""


class Compensated(NamedTuple):
    """A layer's weight and bias after its inputs were removed; the bias is None when the layer has none."""

    weight: Tensor
    bias: Tensor | None


class Elimination(NamedTuple):
    """The order in which units are best removed.

    Args:
        order: unit indices, the first to remove first, ``(removed,)``.
        losses: squared error of the layer's output after removing the first ``i + 1`` of them, ``(removed,)``.
    """

    order: Tensor
    losses: Tensor


def complement(kept: Tensor, width: int) -> Tensor:
    """Return the indices in ``range(width)`` that are not in ``kept``, ascending."""
    mask = torch.ones(width, dtype=torch.bool, device=kept.device)
    mask[kept] = False
    return mask.nonzero().flatten()


def absorb_mean(weight: Tensor, bias: Tensor, mean: Tensor, kept: Tensor) -> Compensated:
    """Remove inputs and add their mean contribution to the bias.

    Args:
        weight: ``(out, width)``.
        bias: ``(out,)``.
        mean: mean of the inputs, ``(width,)``.
        kept: inputs that stay, ``(k,)``.

    Returns:
        Weight ``(out, k)`` and bias ``(out,)``, in the types of the arguments.
    """
    removed = complement(kept, weight.shape[1])
    shifted = bias.to(mean.dtype) + weight[:, removed].to(mean.dtype) @ mean[removed]
    return Compensated(weight[:, kept], shifted.to(bias.dtype))


def absorb_linear(
    weight: Tensor, bias: Tensor | None, mean: Tensor, covariance: Tensor, kept: Tensor, *, ridge: float = RIDGE
) -> Compensated:
    """Remove inputs and let the kept ones take over what they can predict of them, by ridge regression.

    Args:
        weight: ``(out, width)``.
        bias: ``(out,)``; without one, the regression has no intercept either.
        mean: mean of the inputs, ``(width,)``, float64.
        covariance: covariance of the inputs, ``(width, width)``, float64.
        kept: inputs that stay, ``(k,)``.
        ridge: see :data:`RIDGE`.

    Returns:
        Weight ``(out, k)`` and bias, in the types of the arguments.
    """
    removed = complement(kept, weight.shape[1])
    moment = covariance if bias is not None else covariance + torch.outer(mean, mean)
    chol = torch.linalg.cholesky(damped(moment, ridge)[kept][:, kept])
    coefficients = torch.cholesky_solve(moment[kept][:, removed], chol)
    lost = weight[:, removed].to(mean.dtype)
    repaired = (weight[:, kept].to(mean.dtype) + lost @ coefficients.T).to(weight.dtype)
    if bias is None:
        return Compensated(repaired, None)
    shift = lost @ (mean[removed] - coefficients.T @ mean[kept])
    return Compensated(repaired, (bias.to(mean.dtype) + shift).to(bias.dtype))


def eliminate(
    weight: Tensor, covariance: Tensor, count: int, *, unit: int = 1, ridge: float = RIDGE, chunk: int | None = None
) -> Elimination:
    """Choose inputs of a linear layer to remove, one unit after another, each time the one that hurts least.

    After each removal the rest of the weights take over what they can, so that two inputs that say the same are not
    both removed. Exact for ``chunk=1``; larger chunks look for the best only among the most promising candidates
    before the whole inverse is updated, as SparseGPT's lazy batches do.

    Args:
        weight: ``(out, width)``.
        covariance: covariance of the inputs, ``(width, width)``, float64 or float32.
        count: units to remove; less than ``width / unit``.
        unit: neighbouring inputs that go together (the width of a head).
        ridge: see :data:`RIDGE`.
        chunk: units removed between two updates of the whole inverse; by default a 64th of them.

    Returns:
        The order, and the loss after each removal.
    """
    surgeon = _Surgeon(weight.to(covariance.dtype), damped(covariance, ridge), unit)
    step = chunk or max(1, surgeon.units // 64)
    while len(surgeon.order) < count:
        surgeon.remove(min(step, count - len(surgeon.order)))
    losses = torch.tensor(surgeon.losses, dtype=covariance.dtype, device="cpu").cumsum(0)
    return Elimination(torch.tensor(surgeon.order, dtype=torch.long, device=weight.device), losses)


class _Surgeon:
    """State of an elimination: weights after compensation, inverse covariance, and which units are still there.

    Units that are gone are dropped from both once they are more than a fourth, so that removing nearly all of them, as
    a ranking does, takes little more than a third of the time.
    """

    def __init__(self, weight: Tensor, covariance: Tensor, unit: int) -> None:
        self.weight = weight.clone()
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        self.unit = unit
        self.units = weight.shape[1] // unit
        self.names = torch.arange(self.units, device=weight.device)
        self.present = torch.ones(self.units, dtype=torch.bool, device=weight.device)
        self.order: list[int] = []
        self.losses: list[float] = []

    def remove(self, count: int) -> None:
        """Remove ``count`` units, chosen greedily among the four times as many that hurt least alone."""
        scores = unit_losses(self.weight, self.inverse, self.unit).masked_fill(~self.present, torch.inf)
        candidates = scores.topk(min(4 * count, int(self.present.sum())), largest=False).indices
        chosen, losses = _greedy(
            self.weight[:, self._columns(candidates)], _sub(self.inverse, self._columns(candidates)), self.unit, count
        )
        removed = candidates[chosen]
        self.order += self.names[removed].tolist()
        self.losses += losses
        self.present[removed] = False
        _downdate(self.weight, self.inverse, self._columns(removed))
        if int(self.present.sum()) < DROPPED_BELOW * len(self.present):
            self._drop_gone()

    def _drop_gone(self) -> None:
        there = self.present.nonzero().flatten()
        columns = self._columns(there)
        self.weight, self.inverse = self.weight[:, columns], _sub(self.inverse, columns)
        self.names, self.present = self.names[there], self.present[there]

    def _columns(self, units: Tensor) -> Tensor:
        return (units[:, None] * self.unit + torch.arange(self.unit, device=units.device)).flatten()


def unit_losses(weight: Tensor, inverse: Tensor, unit: int) -> Tensor:
    """Return the loss of removing each unit alone, ``tr W_u ([C⁻¹]_uu)⁻¹ W_uᵀ``, ``(units,)``."""
    if unit == 1:
        # The same as below; thousands of solves with one unknown each cost a hundred times as much.
        return weight.square().sum(dim=0) / inverse.diagonal()
    units = weight.shape[1] // unit
    columns = weight.T.reshape(units, unit, -1)
    blocks = inverse.reshape(units, unit, units, unit).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    solved: Tensor = torch.linalg.solve(blocks, columns)
    return (columns * solved).sum(dim=(1, 2))


def _sub(matrix: Tensor, indices: Tensor) -> Tensor:
    return matrix[indices][:, indices].clone()


def _greedy(weight: Tensor, inverse: Tensor, unit: int, count: int) -> tuple[Tensor, list[float]]:
    """Remove ``count`` units of a small problem one by one; returns them in order, and each one's loss."""
    units = weight.shape[1] // unit
    weight, chosen, losses = weight.clone(), [], []
    present = torch.ones(units, dtype=torch.bool, device=weight.device)
    for _ in range(count):
        scores = unit_losses(weight, inverse, unit).masked_fill(~present, torch.inf)
        best = int(scores.argmin())
        chosen.append(best)
        losses.append(float(scores[best]))
        present[best] = False
        _downdate(weight, inverse, torch.arange(best * unit, (best + 1) * unit, device=weight.device))
    return torch.tensor(chosen, device=weight.device), losses


def _downdate(weight: Tensor, inverse: Tensor, removed: Tensor) -> None:
    """Take ``removed`` out of both, in place: the rest of the weights compensate, the inverse forgets them."""
    rows = torch.linalg.solve(inverse[removed][:, removed], inverse[removed])
    weight -= weight[:, removed] @ rows
    inverse -= inverse[:, removed] @ rows
    # Rounding would leave traces that a later division blows up.
    weight[:, removed] = 0
    inverse[removed] = 0
    inverse[:, removed] = 0
    inverse[removed, removed] = 1
