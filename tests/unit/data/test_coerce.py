from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from pah_opt import Data
from pah_opt.data import TensorSplit, as_data, as_split, coerce
from pah_opt.errors import DataError

PIXELS = torch.arange(5 * 12.0).reshape(5, 3, 2, 2)
LABELS = torch.tensor([0, 1, 2, 1, 0])


def pixels_of(data: Data) -> torch.Tensor:
    return torch.cat([batch.pixel_values for batch in data.test.batches(2)])


def dicts() -> Iterator[dict[str, torch.Tensor]]:
    for start in (0, 3):
        yield {"pixel_values": PIXELS[start : start + 3], "labels": LABELS[start : start + 3]}


@pytest.mark.parametrize(
    "given",
    [
        (PIXELS, LABELS),
        [PIXELS, LABELS],
        DataLoader(TensorDataset(PIXELS, LABELS), batch_size=2),
        [(PIXELS[:2], LABELS[:2]), (PIXELS[2:], LABELS[2:])],
        dicts(),
        TensorSplit(PIXELS, LABELS, ("0", "1", "2")),
        {"test": (PIXELS, LABELS)},
        Data(test=TensorSplit(PIXELS, LABELS, ("0", "1", "2"))),
    ],
    ids=["pair", "list-pair", "DataLoader", "batches", "dict-batches", "Split", "mapping", "Data"],
)
def test_everything_a_user_has_becomes_data(given: Any) -> None:
    data = as_data(given)
    assert torch.equal(pixels_of(data), PIXELS)
    assert data.test.class_names == ("0", "1", "2")
    assert data.train is None


def test_mapping_gives_both_splits() -> None:
    data = as_data({"train": (PIXELS[:3], LABELS[:3]), "test": (PIXELS, LABELS)})
    assert data.train is not None
    assert (len(data.train), len(data.test)) == (3, 5)


def test_class_names_are_taken_over() -> None:
    assert as_data((PIXELS, LABELS), class_names=("a", "b", "c", "d")).test.class_names == ("a", "b", "c", "d")


def test_split_is_not_copied_and_not_read() -> None:
    split = TensorSplit(PIXELS, LABELS, ("a", "b", "c"))
    assert as_split(split) is split
    assert "fingerprint" not in vars(split)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "a int is no set of images; give pah_opt.Data"),
        ("uoft-cs/cifar10", "a str is no set of images; .*load_data"),
        ({"train": (PIXELS, LABELS)}, "there are training images only"),
        ([], "test is empty"),
        ([PIXELS], "batch 0 of test is a Tensor without two tensors"),
        ([(PIXELS[0], LABELS[:1])], r"batch 0 of test has pixels of shape \(3, 2, 2\)"),
        ([(PIXELS, LABELS[:2])], r"labels of shape \(2,\)"),
        ([{"pixel_values": PIXELS}], "batch 0 of test is a tuple without two tensors"),
        ([(PIXELS, LABELS), (torch.zeros(1, 3, 4, 4), LABELS[:1])], "images of different shapes"),
        ((torch.full((2, 1, 1, 1), float("nan")), torch.tensor([0, 1])), "image 0 of test holds NaN"),
        ((torch.zeros(0, 1, 1, 1), torch.zeros(0, dtype=torch.int64)), "test is empty"),
        ((PIXELS, LABELS.float()), "labels of test are torch.float32"),
        ((PIXELS, LABELS - 1), "label -1 of image 0"),
        ((PIXELS, LABELS[:3]), "5 images and labels of shape"),
    ],
)
def test_unusable_data_is_refused(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_data(given)


def test_labels_beyond_the_class_names_are_refused() -> None:
    with pytest.raises(DataError, match="label 2 of image 2 of test is outside 0 to 1"):
        as_data((PIXELS, LABELS), class_names=("a", "b"))


def test_training_and_test_images_must_be_different_splits_of_the_same_classes() -> None:
    split = TensorSplit(PIXELS, LABELS, ("a", "b", "c"))
    pair, loader = (PIXELS, LABELS), [(PIXELS, LABELS)]
    for same in (pair, loader):
        with pytest.raises(DataError, match="are the same split"):
            as_data({"train": same, "test": same})
    with pytest.raises(DataError, match="are the same split"):
        as_data(Data(test=split, train=split))
    with pytest.raises(DataError, match="different classes: a, b, x against a, b, c"):
        as_data(Data(test=split, train=TensorSplit(PIXELS, LABELS, ("a", "b", "x"))))


def test_more_pixels_than_fit_in_memory_are_refused_before_they_do_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coerce, "MATERIALIZED_BYTES", PIXELS.nbytes * 2)

    def endless() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield PIXELS, LABELS

    with pytest.raises(DataError, match=r"use pah_opt\.data\.load_data"):
        as_data(endless())
