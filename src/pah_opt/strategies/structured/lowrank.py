r"""Narrow heads in the directions that matter least: pure tensor functions on the weights of one head.

The scores :math:`q^\top k` and the output :math:`O v` of a head do not change when :math:`q, k` and :math:`v, O` are
rewritten in another basis. In the best basis the first :math:`r` of :math:`d` dimensions carry the most:

* query and key: with second moments :math:`\Sigma_q = E[q q^\top]` and :math:`\Sigma_k = \mathrm{Cov}(k)`, the singular
  vectors of :math:`\Sigma_q^{1/2} \Sigma_k^{1/2}` (a constant in :math:`k` cancels in the softmax);
* value and output: with :math:`z` the head's output, the right singular vectors of :math:`O\, \mathrm{Cov}(z)^{1/2}`.

Without data, inputs are taken as uncorrelated with unit variance.

References:
    Eckart & Young (1936); Yu & Wu, Compressing transformers: features are low-rank, but weights are not (AAAI 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor

READOUT_RIDGE = 1e-6
"""Share of the mean variance added when the output projection is solved anew; mapped outputs are well conditioned."""
_RELATIVE_FLOOR = 1e-10


def roots(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symmetric square root of a positive semi-definite matrix, and the pseudo-inverse of that root."""
    values, vectors = torch.linalg.eigh(moment)
    floor = _RELATIVE_FLOOR * values[-1].clamp_min(0)
    kept = values > floor
    root = torch.where(kept, values.clamp_min(0).sqrt(), 0)
    inverse = torch.where(kept, values.clamp_min(torch.finfo(values.dtype).tiny).rsqrt(), 0)
    return (vectors * root) @ vectors.T, (vectors * inverse) @ vectors.T


def score_bases(query_moment: Tensor, key_covariance: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the maps that take queries and keys of one head to ``rank`` dimensions with the scores kept best.

    Args:
        query_moment: second moment of the queries about zero, ``(d, d)``, float64.
        key_covariance: covariance of the keys, ``(d, d)``, float64.
        rank: dimensions that stay, at most ``d``.

    Returns:
        ``(rank, d)`` for queries and ``(rank, d)`` for keys; with ``rank == d`` scores stay exactly the same wherever
        queries and keys have any variance.
    """
    query_root, query_inverse = roots(query_moment)
    key_root, key_inverse = roots(key_covariance)
    left, singular, right = torch.linalg.svd(query_root @ key_root)
    scale = singular[:rank].sqrt()[:, None]
    return (scale * left[:, :rank].T) @ query_inverse, (scale * right[:rank]) @ key_inverse


def value_basis(output: Tensor, covariance: Tensor, rank: int) -> Tensor:
    """Return the map that takes the output of one head to ``rank`` dimensions that carry most of what is read.

    Args:
        output: the columns of the output projection that read this head, ``(hidden_size, d)``, float64.
        covariance: of the head's output, ``(d, d)``, float64.
        rank: dimensions that stay, at most ``d``.

    Returns:
        ``(rank, d)``; its rows give the head's output unit variance in every direction.
    """
    root, inverse = roots(covariance)
    right: Tensor = torch.linalg.svd(output @ root, full_matrices=True).Vh
    return right[:rank] @ inverse


def readout(output: Tensor, covariance: Tensor, basis: Tensor, ridge: float) -> Tensor:
    """Return the weights that read the mapped outputs of all heads, closest to what ``output`` read from them.

    Args:
        output: ``(hidden_size, width)``, float64.
        covariance: of all heads' outputs, ``(width, width)``, float64.
        basis: what the outputs were mapped by, ``(narrow, width)``.
        ridge: share of the mean variance added to every variance.

    Returns:
        ``(hidden_size, narrow)``.
    """
    mapped = basis @ covariance
    inner = mapped @ basis.T
    inner = inner + ridge * inner.diagonal().mean().clamp_min(torch.finfo(inner.dtype).tiny) * torch.eye(
        len(inner), dtype=inner.dtype, device=inner.device
    )
    solution: Tensor = torch.linalg.solve(inner, mapped @ output.T)
    return solution.T


def apply_rows(mapping: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Map the outputs of a linear layer, in place: its first rows become ``mapping @ weight``, the rest stays.

    Args:
        mapping: ``(rank, d)``, float64.
        weight: ``(d, in)``, a view of a parameter.
        bias: ``(d,)``, a view of a parameter.
    """
    rank = mapping.shape[0]
    weight[:rank] = (mapping @ weight.to(mapping.dtype)).to(weight.dtype)
    if bias is not None:
        bias[:rank] = (mapping @ bias.to(mapping.dtype)).to(bias.dtype)
