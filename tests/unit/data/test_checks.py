from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pah_opt import Data
from pah_opt.data import TensorSplit, check_fit, label_names, labels_of, training_images
from pah_opt.errors import DataError
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.testing.models import tiny_vit


def split(classes: tuple[str, ...] = ("cat", "dog", "emu"), shape: tuple[int, ...] = (3, 32, 32)) -> TensorSplit:
    return TensorSplit(torch.zeros(3, *shape), torch.arange(3), classes, "animals")


def layout_of(model: torch.nn.Module) -> Any:
    return find_adapter(model, default_registry().adapters).layout(model)


def named(*names: str) -> torch.nn.Module:
    model = tiny_vit(classes=3)
    model.config.id2label = dict(enumerate(names))  # type: ignore[union-attr, assignment]  # a transformers config
    return model


def test_images_and_classes_that_fit_pass() -> None:
    model = tiny_vit(classes=3)
    check_fit(split(), layout_of(model), model=model)


def test_wrong_size_names_both_sides_and_the_remedy() -> None:
    with pytest.raises(DataError, match=r"\(3, 16, 16\), the model takes \(3, 32, 32\).*split.resized\(32, 32\)"):
        check_fit(split(shape=(3, 16, 16)), layout_of(tiny_vit(classes=3)))


def test_wrong_channels_are_refused() -> None:
    with pytest.raises(DataError, match=r"have shape \(1, 32, 32\)"):
        check_fit(split(shape=(1, 32, 32)), layout_of(tiny_vit(classes=3)))


def scaled(largest: float, *, black: int = 0) -> TensorSplit:
    pixels = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * largest
    pixels[:black] = 0
    return TensorSplit(pixels, torch.arange(16) % 3, ("cat", "dog", "emu"), "animals")


@pytest.mark.parametrize("black", [0, 5])
def test_pixels_from_0_to_255_are_refused_even_behind_black_images(black: int) -> None:
    with pytest.raises(DataError, match=r"images of animals look unscaled: .* up to 25[45].*own processor"):
        check_fit(scaled(255.0, black=black), layout_of(tiny_vit(classes=3)))


@pytest.mark.parametrize("largest", [1.0, 5.0, 19.0])
def test_pixels_of_any_usual_normalisation_pass(largest: float) -> None:
    check_fit(scaled(largest), layout_of(tiny_vit(classes=3)))


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_head_of_another_width_is_refused(classes: int) -> None:
    with pytest.raises(DataError, match=f"has 3 classes .*, the model's head has {classes}: its logits would mean"):
        check_fit(split(), layout_of(tiny_vit(classes=classes)))


def test_labels_out_of_step_with_the_head_are_refused_by_name() -> None:
    model = named("dog", "cat", "emu")
    with pytest.raises(
        DataError, match="labels are out of step: class 'cat' is 0 in animals and 1 in the model's config"
    ):
        check_fit(split(), layout_of(model), model=model)


def test_names_are_compared_without_case_and_underscores() -> None:
    model = named("CAT", "dog", "Big_emu")
    check_fit(split(("cat", "Dog", "big emu")), layout_of(model), model=model)


@pytest.mark.parametrize("names", [("A", "a", "b"), ("a-b", "a_b", "A B"), ("cat", "CAT", "dog")])
def test_names_that_differ_by_case_or_dashes_alone_are_told_apart(names: tuple[str, ...]) -> None:
    check_fit(split(names), layout_of(named(*names)), model=named(*names))
    with pytest.raises(DataError, match="labels are out of step"):
        check_fit(split(names), layout_of(named(*names)), model=named(names[1], names[0], names[2]))


def test_spelling_that_two_classes_share_proves_nothing() -> None:
    model = named("canine", "Big Emu", "bird")
    check_fit(split(("big-emu", "dog", "big_emu")), layout_of(model), model=model)


def test_other_spellings_are_no_proof_of_an_error() -> None:
    model = named("feline", "canine", "bird")
    check_fit(split(), layout_of(model), model=model)


def test_placeholder_names_count_as_none() -> None:
    assert label_names(tiny_vit(classes=3)) == ()
    assert label_names(named("a", "b", "c")) == ("a", "b", "c")
    assert label_names(torch.nn.Linear(1, 1)) == ()


def test_labels_of_a_foreign_split_are_read_from_its_batches() -> None:
    own = split()
    foreign = SimpleNamespace(batches=own.batches)
    assert labels_of(foreign).tolist() == [0, 1, 2]  # type: ignore[arg-type]  # only what is needed


def test_missing_training_images_are_named() -> None:
    with pytest.raises(DataError, match="no training images beside animals"):
        training_images(Data(test=split()))


def test_training_images_are_returned() -> None:
    train = split()
    assert training_images(Data(test=split(), train=train)) is train


def test_empty_split_is_refused() -> None:
    empty = split()
    empty.labels = empty.labels[:0]
    with pytest.raises(DataError, match="animals is empty"):
        check_fit(empty, layout_of(tiny_vit(classes=3)))
