"""The mathematics: what merging keeps, what it never touches, and how often."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pah_opt_tome.matching import attention_bias, bipartite_matching, merge, unmerge
from pah_opt_tome.schedule import merges_per_block


@settings(max_examples=40, deadline=None)
@given(free=st.integers(2, 21), protected=st.integers(0, 3), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_merging_conserves_the_sum_of_sizes_and_the_weighted_sum_of_tokens(
    free: int, protected: int, share: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, free + protected, 5, dtype=torch.float64, generator=generator)
    sizes = torch.randint(1, 5, (2, free + protected, 1), generator=generator).double()
    r = int(share * (free // 2))
    merged, weights = merge(tokens, sizes, bipartite_matching(tokens, r, protected))
    assert merged.shape[1] == free + protected - r
    assert torch.equal(weights.sum(1), sizes.sum(1))
    assert torch.allclose((merged * weights).sum(1), (tokens * sizes).sum(1))
    assert torch.allclose(merged[:, :protected], tokens[:, :protected], rtol=1e-12)  # times its size and back
    whole = unmerge(merged, weights, int(sizes[0].sum()))
    assert torch.allclose(whole[0].mean(0), (tokens * sizes)[0].sum(0) / sizes[0].sum())


def test_the_most_similar_pairs_merge() -> None:
    tokens = torch.tensor([[[1.0, 0], [1, 0.01], [0, 1], [-1, 0], [0.5, 0.5], [0, -1]]])
    merged, sizes = merge(tokens, torch.ones(1, 6, 1), bipartite_matching(tokens, 1))
    assert sizes.flatten().tolist() == [1, 1, 2, 1, 1]  # two even tokens stay, then the odd ones: the first took one
    assert torch.allclose(merged[0, 2], torch.tensor([1.0, 0.005]))


def test_more_tokens_than_can_be_matched_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 2"):
        bipartite_matching(torch.randn(1, 6, 4), 3, protected=1)


def test_attention_to_a_merged_token_equals_attention_to_its_copies() -> None:
    query, key, value = torch.randn(3, 1, 1, 4, 8, dtype=torch.float64)
    key[..., 3, :], value[..., 3, :] = key[..., 2, :], value[..., 2, :]
    sizes = torch.tensor([[[1.0], [1], [2]]], dtype=torch.float64)
    attend = torch.nn.functional.scaled_dot_product_attention
    merged = attend(query, key[..., :3, :], value[..., :3, :], attention_bias(sizes))
    assert torch.allclose(merged, attend(query, key, value))


@pytest.mark.parametrize("schedule", ["constant", "decreasing"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_the_share_that_is_asked_for_is_kept_exactly(schedule: str, keep: float) -> None:
    merges = merges_per_block(196, 12, r=None, keep=keep, schedule=schedule)
    assert 196 - sum(merges) == round(196 * keep)


def test_a_block_merges_at_most_half_of_what_reaches_it() -> None:
    assert merges_per_block(16, 4, r=7, keep=0.5, schedule="constant") == (7, 4, 2, 1)


def test_a_decreasing_schedule_falls_to_nothing_and_merges_as_many() -> None:
    merges = merges_per_block(196, 12, r=8, keep=0.5, schedule="decreasing")
    assert sum(merges) == 96
    assert list(merges) == sorted(merges, reverse=True)
    assert merges[-1] <= 1


@pytest.mark.parametrize(("patches", "blocks", "keep"), [(16, 2, 0.25), (196, 6, 0.1), (196, 12, 0.05)])
@pytest.mark.parametrize("schedule", ["constant", "decreasing"])
def test_the_share_is_kept_where_the_last_blocks_alone_could_not(
    patches: int, blocks: int, keep: float, schedule: Any
) -> None:
    merges = merges_per_block(patches, blocks, r=None, keep=keep, schedule=schedule)
    assert patches - sum(merges) == round(keep * patches)
    assert min(merges) >= 0
