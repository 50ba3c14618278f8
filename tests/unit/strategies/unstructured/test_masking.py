from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pah_opt.strategies.unstructured.masking import group_mask, ranks, row_mask, spread, zero_count


@given(st.integers(0, 1000), st.integers(1, 50))
def test_spread_shares_out_everything_evenly(count: int, parts: int) -> None:
    shares = spread(count, parts)
    assert sum(shares) == count
    assert max(shares) - min(shares) <= 1


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1), st.booleans())
def test_rows_lose_the_count_in_all_and_one_apart_at_most(rows: int, columns: int, share: float, tied: bool) -> None:
    scores = torch.ones(rows, columns) if tied else torch.rand(rows, columns)
    count = zero_count(share, scores.numel())
    per_row = row_mask(scores, count).sum(dim=1)
    assert int(per_row.sum()) == count
    assert int(per_row.max() - per_row.min()) <= 1


def test_rows_lose_their_smallest_scores() -> None:
    mask = row_mask(torch.tensor([[3.0, 1.0, 2.0], [9.0, 8.0, 7.0]]), 2)
    assert mask.tolist() == [[False, True, False], [False, False, True]]


@pytest.mark.parametrize(("kept", "group"), [(2, 4), (1, 4), (4, 8), (1, 2), (7, 8)])
@pytest.mark.parametrize("tied", [False, True])
def test_every_group_keeps_exactly_n_of_m_largest(kept: int, group: int, tied: bool) -> None:
    torch.manual_seed(0)
    scores = torch.ones(6, 3 * group) if tied else torch.rand(6, 3 * group)
    mask = group_mask(scores, kept, group)
    grouped, dropped = scores.reshape(-1, group), mask.reshape(-1, group)
    assert mask.shape == scores.shape
    assert (dropped.sum(dim=1) == group - kept).all()
    smallest_kept = grouped.masked_fill(dropped, torch.inf).amin(dim=1)
    largest_dropped = grouped.masked_fill(~dropped, -torch.inf).amax(dim=1)
    assert (smallest_kept >= largest_dropped).all()


def test_ranks_are_a_permutation_of_each_row() -> None:
    torch.manual_seed(0)
    found = ranks(torch.rand(5, 11))
    assert torch.equal(found.sort(dim=1).values, torch.arange(11).expand(5, 11))


def test_zero_count_rounds_like_torch_prune() -> None:
    assert [zero_count(0.5, 5), zero_count(0.29, 100), zero_count(0.07, 100), zero_count(0.3, 10)] == [2, 29, 7, 3]
