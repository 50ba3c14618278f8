from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pah_opt.adapt import Epoch, TrainResult, save_curves


def result(validated: bool) -> TrainResult:
    accuracy = 0.8 if validated else None
    epochs = tuple(Epoch(number, 2 * number, 1.0, 0.5, accuracy, accuracy, 1e-4, 1.0) for number in (1, 2))
    return TrainResult(epochs, (1.4, 1.2, 1.1, 1.0), 4, 2.0)


@pytest.mark.parametrize("validated", [True, False])
def test_curves_are_a_picture(tmp_path: Path, validated: bool) -> None:
    assert save_curves(result(validated), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_nothing_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not save_curves(result(True), tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_accuracy_of_a_result_is_that_of_the_weights_kept() -> None:
    assert result(True).validation_accuracy == 0.8
    assert TrainResult((), (), 0, 0.0).validation_accuracy is None
