from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from pah_opt.strategies.unstructured.cut import Cut, cut_mask, find_cut


def masks(pieces: list[Tensor], count: int) -> list[Tensor]:
    cut = find_cut([lambda piece=piece: piece for piece in pieces], count)
    found, ties = [], cut.ties
    for piece in pieces:
        mask, ties = cut_mask(piece, cut, ties)
        found.append(mask)
    return found


def dropped(pieces: list[Tensor], count: int) -> int:
    return sum(int(mask.sum()) for mask in masks(pieces, count))


scores = st.lists(
    st.lists(st.sampled_from([0.0, 1e-45, 1e-38, 0.5, 0.5000001, 1.0, 3e38, float("inf")]), min_size=1, max_size=20),
    min_size=1,
    max_size=4,
)


@settings(max_examples=200)
@given(scores, st.floats(0, 1))
def test_exactly_so_many_of_the_smallest_go_whatever_the_ties(values: list[list[float]], share: float) -> None:
    pieces = [torch.tensor(piece) for piece in values]
    total = sum(len(piece) for piece in pieces)
    count = round(share * total)
    found = masks(pieces, count)
    gone = torch.cat([piece[mask] for piece, mask in zip(pieces, found, strict=True)])
    kept = torch.cat([piece[~mask] for piece, mask in zip(pieces, found, strict=True)])
    assert len(gone) == count
    assert not len(gone) or not len(kept) or gone.max() <= kept.min()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_mask_is_that_of_torch_global_unstructured(share: float) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(64, 48), nn.Linear(48, 80), nn.Linear(80, 7)]
    pieces = [layer.weight.detach().abs().clone() for layer in layers]
    total = sum(piece.numel() for piece in pieces)
    torch_prune.global_unstructured([(layer, "weight") for layer in layers], torch_prune.L1Unstructured, amount=share)
    for layer, mask in zip(layers, masks(pieces, round(share * total)), strict=True):
        assert torch.equal(mask, layer.weight_mask == 0)


def test_nothing_goes_for_a_count_of_zero_even_among_zeros() -> None:
    assert find_cut([lambda: torch.zeros(4)], 0) == Cut(0.0, 0, 0)
    assert dropped([torch.zeros(4)], 0) == 0


def test_everything_goes_when_all_are_asked_for() -> None:
    assert dropped([torch.rand(3, 5), torch.rand(7)], 22) == 22


def test_of_equal_scores_the_first_go_across_layers() -> None:
    first, second = masks([torch.ones(2, 2), torch.ones(3)], 5)
    assert first.all()
    assert second.tolist() == [True, False, False]


def test_half_precision_scores_are_cut_exactly() -> None:
    torch.manual_seed(0)
    scores = torch.randn(4096).to(torch.bfloat16).abs().float()
    assert dropped([scores], 2048) == 2048


def test_noncontiguous_scores_are_cut_like_contiguous_ones() -> None:
    torch.manual_seed(0)
    scores = torch.rand(16, 8).T
    assert torch.equal(masks([scores], 50)[0], masks([scores.contiguous()], 50)[0])
    tied = torch.ones(16, 8).T
    assert int(masks([tied], 50)[0].sum()) == 50


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_torchs_defaults_do_not_change_the_cut(default: torch.dtype) -> None:
    piece = torch.rand(40, generator=torch.Generator().manual_seed(0))
    wanted, before = find_cut([lambda: piece], 11), torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        with torch.device("meta"):
            assert find_cut([lambda: piece], 11) == wanted
            assert find_cut([piece.double], 11) == wanted
    finally:
        torch.set_default_dtype(before)
