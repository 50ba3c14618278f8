from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pah_opt.errors import MeasurementError, MissingBackendError
from pah_opt.measure.schema import Accuracy, Memory
from pah_opt.report import Curve, Report
from pah_opt.report.pareto import AXES, Point, front, labels, points
from pah_opt.report.plots import save_curve, save_tradeoff
from pah_opt.report.svg import scale_over


def is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("axis", ["size", "latency"])
def test_a_tradeoff_is_drawn(axis: Any, report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert is_png(save_tradeoff(report, tmp_path / "plots" / "x.png", against=axis))


def test_a_curve_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert is_png(save_curve(Curve(x=(1, 2), y=(2, 1)), tmp_path / "x.png", title="loss"))


def test_nothing_to_draw_is_an_error_that_says_what_is_missing(report: Report, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="both energy and top-1 accuracy"):
        save_tradeoff(report, tmp_path / "x.png", against="energy")


def test_without_matplotlib_the_extra_is_named(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingBackendError, match=r"pah-opt\[plots\]"):
        save_tradeoff(report, tmp_path / "x.png")


def test_the_front_is_what_nothing_beats() -> None:
    shown = [Point("a", 3, 95), Point("b", 1, 90), Point("c", 2, 80), Point("d", 4, 94), Point("e", 1, 85)]
    assert [point.name for point in front(shown)] == ["b", "a"]


def test_equal_models_are_both_on_the_front() -> None:
    assert [point.name for point in front([Point("a", 1, 90), Point("b", 1, 90)])] == ["a", "b"]


def test_models_on_one_another_share_a_label() -> None:
    assert [place.name for place in labels([Point("a", 1, 90), Point("b", 1, 90), Point("c", 9, 80)])] == ["a, b", "c"]


def test_without_accuracy_throughput_is_drawn(make_report: Any, make_model: Any) -> None:
    shown, upwards = points(make_report(make_model(accuracy=Accuracy.having("random weights"))), "size")
    assert (upwards.title, shown) == ("throughput", [Point("dense", 343.0, 64.0)])


def test_bytes_in_memory_stand_in_for_a_file_that_cannot_be_saved(make_report: Any, make_model: Any) -> None:
    memory = Memory.having("cannot be saved", weights_bytes=10_000_000)
    assert points(make_report(make_model(memory=memory)), "size")[0][0].x == 10.0


@pytest.mark.parametrize("values", [(0.0, 1.0), (3.2, 3.4), (1200.0, 98000.0), (5.0, 5.0), (1e-6, 3e-6), (-2.0, 2.0)])
def test_ticks_are_round_and_inside(values: tuple[float, float]) -> None:
    scale = scale_over(values, 0, 100)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 12
    assert all(scale.low - 1e-9 <= tick <= scale.high + 1e-9 for tick in ticks)
    assert all(0 <= scale(value) <= 100 for value in values)


def test_axes_name_their_units() -> None:
    assert [axis.label for axis in AXES.values()] == ["median latency, ms", "size, MB", "energy, J an image"]
