from __future__ import annotations

import sys

import pytest
import torch

from pah_opt.data import digits_data, digits_processor, labels_of
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
