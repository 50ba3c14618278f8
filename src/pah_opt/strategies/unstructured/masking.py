"""Which weights go: masks for rows and for n:m groups, from scores alone. True means: set this weight to zero."""

from __future__ import annotations

import torch
from torch import Tensor


def zero_count(share: float, total: int) -> int:
    """Return how many of ``total`` weights a share of zeros means, rounded to the nearest.

    >>> zero_count(0.5, 5)
    2
    """
    return round(share * total)


def spread(count: int, parts: int) -> list[int]:
    """Share ``count`` out over ``parts`` as evenly as whole numbers allow.

    >>> spread(7, 3)
    [2, 2, 3]
    """
    return [(part + 1) * count // parts - part * count // parts for part in range(parts)]


def row_mask(scores: Tensor, count: int) -> Tensor:
    """Drop the smallest scores of each row, ``count`` in all, rows differing by at most one.

    Args:
        scores: ``(rows, columns)``.
        count: how many scores go in the whole matrix.

    Returns:
        Bool, ``(rows, columns)``, with exactly ``count`` True; of equal scores the first go.
    """
    per_row = torch.tensor(spread(count, scores.shape[0]), device=scores.device)
    return ranks(scores) < per_row[:, None]


def ranks(scores: Tensor) -> Tensor:
    """Return each score's place in its row, 0 for the smallest; of equal scores the first comes first.

    >>> ranks(torch.tensor([[3.0, 1.0, 1.0]])).tolist()
    [[2, 0, 1]]
    """
    order = scores.argsort(dim=-1, stable=True)
    places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def group_mask(scores: Tensor, kept: int, group: int) -> Tensor:
    """Drop all but the ``kept`` largest of every ``group`` neighbours along the last dimension.

    Args:
        scores: ``(..., columns)`` with ``columns`` a multiple of ``group``.
        kept: how many of a group stay.
        group: size of a group.

    Returns:
        Bool, of the same shape; of equal scores the first go.

    >>> group_mask(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), kept=2, group=4).tolist()
    [[False, True, False, True]]
    """
    return (ranks(scores.reshape(-1, group)) < group - kept).reshape(scores.shape)
