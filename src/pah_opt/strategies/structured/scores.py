"""How important each head or hidden unit is: pure tensor functions, higher is more important.

Every function takes one matrix per layer with a row for each unit (see
:func:`~pah_opt.strategies.structured.weights.unit_weights`) or per-unit statistics, and returns ``(units,)``.

References:
    Magnitude: Li et al. (arXiv 1608.08710), Fang et al., DepGraph (arXiv 2301.12900). LAMP: Lee et al. (arXiv
    2010.07611). Taylor: Molchanov et al. (arXiv 1906.10771), Michel et al. (arXiv 1905.10650). Hessian: LeCun et al.,
    Optimal brain damage (NeurIPS 1989), Kwon et al. (arXiv 2204.09656). Activation: Sun et al., Wanda (arXiv
    2306.11695).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def magnitude(weights: Sequence[Tensor], p: int = 2) -> Tensor:
    """Return the sum of ``|w| ** p`` of each unit, averaged over layers, relative to the mean unit of the block."""
    score = torch.stack([part.float().abs().pow(p).sum(dim=1) for part in weights]).mean(dim=0)
    mean = score.mean()
    return score / torch.where(mean > 0, mean, torch.ones_like(mean))


def lamp(weights: Sequence[Tensor]) -> Tensor:
    """Return each unit's share of the squared weights of all units that are at least as large."""
    score = magnitude(weights)
    ordered, order = score.sort()
    remaining = ordered.flip(0).cumsum(0).flip(0)
    return torch.empty_like(score).scatter_(0, order, ordered / remaining.clamp_min(torch.finfo(score.dtype).tiny))


def uniform_random(count: int, generator: torch.Generator) -> Tensor:
    """Return a random importance for each of ``count`` units."""
    return torch.rand(count, generator=generator, dtype=torch.float32, device="cpu")


def activation(weight: Tensor, second_moment: Tensor, unit: int) -> Tensor:
    """Return the mean squared contribution of each unit to the output of the layer that reads it.

    Args:
        weight: of the reading layer, ``(out, units * unit)``.
        second_moment: of its inputs about zero, ``(units * unit, units * unit)``.
        unit: inputs per unit.
    """
    units = weight.shape[1] // unit
    columns = weight.to(second_moment.dtype).T.reshape(units, unit, -1)
    blocks = second_moment.reshape(units, unit, units, unit).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    return torch.einsum("uio,uij,ujo->u", columns, blocks, columns)


def taylor(gates: Tensor) -> Tensor:
    """Return the mean absolute first-order change of the loss when a unit is switched off.

    Args:
        gates: derivative of each image's loss by a factor on each unit, ``(images, units)``.
    """
    return gates.abs().mean(dim=0)


def hessian(gates: Tensor) -> Tensor:
    """Return the second-order change of the loss when a unit is switched off, with the empirical Fisher information.

    Args:
        gates: derivative of each image's loss by a factor on each unit, ``(images, units)``.
    """
    return gates.square().mean(dim=0) / 2
