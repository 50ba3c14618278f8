from __future__ import annotations

from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pah_opt.data import TensorSplit, balanced_subset, calibration_split, labels_of, validation_split
from pah_opt.data.sampling import balanced_order
from pah_opt.errors import DataError

LABELS = torch.tensor([0] * 30 + [1] * 20 + [2] * 10)


def numbered(labels: torch.Tensor = LABELS) -> TensorSplit:
    """Images whose pixel is their number."""
    pixels = torch.arange(float(len(labels))).reshape(-1, 1, 1, 1)
    return TensorSplit(pixels, labels, ("a", "b", "c"), "numbered")


def numbers(split: object) -> list[int]:
    return cast(TensorSplit, split).pixel_values.flatten().int().tolist()


def test_calibration_images_are_balanced_over_the_classes() -> None:
    assert labels_of(calibration_split(numbered(), 15, seed=0)).bincount().tolist() == [5, 5, 5]


def test_small_classes_give_what_they_have() -> None:
    assert labels_of(calibration_split(numbered(), 45, seed=0)).bincount().tolist() == [18, 17, 10]


def test_any_first_part_of_the_calibration_images_is_balanced() -> None:
    labels = labels_of(calibration_split(numbered(), 12, seed=0))
    assert all(labels[start : start + 3].unique().numel() == 3 for start in range(0, 12, 3))


def test_choice_depends_on_the_seed_alone() -> None:
    one, same, other = (numbers(calibration_split(numbered(), 9, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_limited_images_keep_their_order() -> None:
    chosen = numbers(balanced_subset(numbered(), 9, seed=0))
    assert chosen == sorted(chosen)


@pytest.mark.parametrize("size", [0, 61])
def test_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(DataError, match=f"{size} images are asked of numbered, which has 60"):
        calibration_split(numbered(), size, seed=0)


def test_validation_images_are_disjoint_and_of_the_same_proportions() -> None:
    train, validation = validation_split(numbered(), 0.2, seed=0)
    assert sorted(numbers(train) + numbers(validation)) == list(range(60))
    assert labels_of(validation).bincount().tolist() == [6, 4, 2]


def test_every_class_with_two_images_is_in_both_parts() -> None:
    labels = torch.tensor([0] * 50 + [1, 1, 2])
    train, validation = validation_split(numbered(labels), 0.05, seed=0)
    assert labels_of(train).bincount().tolist() == [48, 1, 1]
    assert labels_of(validation).bincount(minlength=3).tolist() == [2, 1, 0]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_impossible_share_is_refused(share: float) -> None:
    with pytest.raises(DataError, match="above 0 and below 1"):
        validation_split(numbered(), share, seed=0)


def test_share_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="leaves nothing for validation"):
        validation_split(numbered(torch.tensor([0, 1, 2])), 0.1, seed=0)


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=40), seed=st.integers(0, 99), data=st.data())
def test_balanced_order_is_a_permutation_whose_parts_are_balanced(
    labels: list[int], seed: int, data: st.DataObject
) -> None:
    order = balanced_order(torch.tensor(labels), seed)
    assert sorted(order) == list(range(len(labels)))
    size = data.draw(st.integers(1, len(labels)))
    chosen = torch.tensor(labels)[order[:size]].bincount(minlength=5)
    left = torch.tensor(labels).bincount(minlength=5) - chosen
    unfinished = chosen[left > 0]
    assert not unfinished.numel() or int(chosen.max()) - int(unfinished.min()) <= 1
