"""Find the k-th smallest score over many tensors, exactly, without ever joining them.

Non-negative IEEE floats sort like their bit patterns read as integers. Two counting passes, over the upper and then
the lower 16 bits, therefore give the exact k-th smallest value in time linear in the number of scores, with one piece's
scores and two small histograms in memory. ``torch.topk`` over the joined scores needs several times the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Piece = Callable[[], Tensor]
"""Computes the scores of one layer, or of a part of one: float32, non-negative, no NaN; called once a pass."""

_LOW_BITS = 16
_LOW_BINS = 1 << _LOW_BITS
_HIGH_BINS = 1 << (31 - _LOW_BITS)
_BATCH = 1 << 17


class Cut(NamedTuple):
    """What to drop so that exactly so many scores go.

    Args:
        threshold: every score below it goes.
        ties: how many of the scores equal to it go too, first ones first.
        equal: how many scores are equal to it.
    """

    threshold: float
    ties: int
    equal: int


def find_cut(pieces: Sequence[Piece], count: int) -> Cut:
    """Return the cut that drops exactly the ``count`` smallest scores of all ``pieces`` together.

    Args:
        pieces: scores of each layer.
        count: how many scores to drop, from 0 to all.

    >>> find_cut([lambda: torch.tensor([3.0, 1.0]), lambda: torch.tensor([1.0, 2.0])], 2)
    Cut(threshold=1.0, ties=2, equal=2)
    """
    if count == 0:
        return Cut(0.0, 0, 0)
    high, below = _bin_of(_histogram((_high(_bits(piece())) for piece in pieces), _HIGH_BINS), count)
    histogram = _histogram((_low_within(_bits(piece()), high) for piece in pieces), _LOW_BINS)
    low, below_low = _bin_of(histogram, count - below)
    pattern = torch.tensor((high << _LOW_BITS) | low, dtype=torch.int32, device="cpu")
    return Cut(float(pattern.view(torch.float32)), count - below - below_low, int(histogram[low]))


def cut_mask(scores: Tensor, cut: Cut, ties_left: int) -> tuple[Tensor, int]:
    """Return which scores go, bool of the same shape, and how many ties are left for the layers after this one."""
    if cut.ties == cut.equal:
        return (scores <= cut.threshold if cut.ties else scores < cut.threshold), 0
    drop = (scores < cut.threshold).contiguous()  # scores of a transposed weight are a transposed view
    if not ties_left:
        return drop, 0
    tied = (scores == cut.threshold).flatten().nonzero().flatten()[:ties_left]
    drop.view(-1)[tied] = True
    return drop, ties_left - len(tied)


def _bits(scores: Tensor) -> Tensor:
    return scores.float().contiguous().view(torch.int32).flatten()


def _high(bits: Tensor) -> Tensor:
    return bits >> _LOW_BITS


def _low_within(bits: Tensor, high: int) -> Tensor:
    first = high << _LOW_BITS
    return bits[(bits >= first) & (bits <= first + _LOW_BINS - 1)] - first


def _histogram(digits: Iterable[Tensor], bins: int) -> Tensor:
    total = torch.zeros(bins, dtype=torch.int64, device="cpu")
    for batch in _batches(digits):
        total += torch.bincount(batch, minlength=bins).cpu()
    return total


def _batches(digits: Iterable[Tensor]) -> Iterator[Tensor]:
    """Join small pieces: a histogram of few digits would cost more for its bins than for the digits."""
    waiting: list[Tensor] = []
    size = 0
    for piece in digits:
        waiting.append(piece)
        size += piece.numel()
        if size >= _BATCH:
            yield _joined(waiting)
            waiting, size = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))


def _bin_of(histogram: Tensor, count: int) -> tuple[int, int]:
    """Return the bin that holds the ``count``-th smallest digit, and how many digits are in the bins below it."""
    cumulative = histogram.cumsum(0)
    position = int(torch.searchsorted(cumulative, count))
    return position, int(cumulative[position] - histogram[position])
