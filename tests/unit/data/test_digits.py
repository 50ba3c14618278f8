from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pah_opt.data import digits_data, digits_processor, is_digits, labels_of, load_data, split_names
from pah_opt.errors import DataError, MissingBackendError


def test_digits_are_cut_into_disjoint_balanced_parts() -> None:
    data = digits_data()
    assert data.train is not None
    assert (len(data.train), len(data.test)) == (1347, 450)
    assert labels_of(data.test).bincount().min() >= 43
    rows = {tuple(image.flatten().tolist()) for batch in data.train.batches(512) for image in batch.pixel_values}
    assert len(rows) == 1347, "no two digits are the same, so that parts by index are parts by content"


def test_split_depends_on_the_seed_alone() -> None:
    assert digits_data(seed=3).test.fingerprint == digits_data(seed=3).test.fingerprint
    assert digits_data(seed=3).test.fingerprint != digits_data(seed=4).test.fingerprint


def test_pixels_are_normalised_and_of_the_size_asked_for() -> None:
    data = digits_data(16)
    assert data.train is not None
    assert next(data.train.batches(2)).pixel_values.shape == (2, 3, 16, 16)
    pixels = torch.cat([batch.pixel_values for batch in data.train.resized(8, 8).batches(512)])
    assert abs(float(pixels.mean())) < 0.02
    assert abs(float(pixels.std()) - 1.0) < 0.02


def test_size_below_one_is_refused() -> None:
    with pytest.raises(DataError, match="image_size is 0"):
        digits_processor(0)


def test_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingBackendError, match=r"pip install 'pah-opt\[demo\]'"):
        digits_data()


def test_the_name_digits_needs_no_download_and_any_processor_may_read_it() -> None:
    data = load_data("digits", digits_processor(24), train_limit=100, test_limit=50)
    assert data.train is not None
    assert (len(data.train), len(data.test)) == (100, 50)
    assert next(iter(data.test.batches(4))).pixel_values.shape == (4, 3, 24, 24)
    assert load_data("digits", digits_processor(24)).test.fingerprint == digits_data(24).test.fingerprint
    assert split_names("digits") == ("train", "test")


def test_other_seeds_keep_training_and_test_images_of_the_name_digits_apart() -> None:
    first, second = (load_data("digits", digits_processor(), test_limit=60, seed=seed) for seed in (0, 1))
    assert first.test.fingerprint != second.test.fingerprint
    assert second.train is not None
    assert second.train.fingerprint == digits_data().train.fingerprint  # type: ignore[union-attr]


@pytest.mark.parametrize("choice", [{"test_share": 0.2}, {"test_split": "valid"}, {"label_column": "label"}])
def test_what_the_name_digits_cannot_choose_is_refused(choice: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"{next(iter(choice))} is .* digits has nothing to choose; leave it out"):
        load_data("digits", digits_processor(), **choice)


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_digits("digits")
    Path("digits").mkdir()
    assert not is_digits("digits")
