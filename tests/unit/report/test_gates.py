from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pah_opt.errors import GateFailedError, MeasurementError
from pah_opt.measure.schema import Accuracy, VsBaseline
from pah_opt.recipe import Gate
from pah_opt.report import Report, check_gates, read_limits, require_gates, with_gates
from pah_opt.report.figures import AGAINST_BASELINE, FIGURES, figure


def test_limits_are_kept_or_not(report: Report) -> None:
    results = check_gates(report, {"top1_drop_pp": Gate(max=0.5), "throughput_x": Gate(min=2.5)})["int8"]
    assert [(gate.metric, gate.passed, gate.value) for gate in results] == [
        ("top1_drop_pp", True, pytest.approx(0.2)), ("throughput_x", False, 2.0),
    ]  # fmt: skip
    assert results[1].message == "int8: throughput_x is 2, the limit is >= 2.5"


@pytest.mark.parametrize(
    ("gate", "passed"),
    [(Gate(max=2.0), True), (Gate(min=2.0), True), (Gate(max=1.99), False), (Gate(min=1.5, max=2.5), True)],
)
def test_a_limit_itself_is_kept(gate: Gate, passed: bool, report: Report) -> None:
    assert check_gates(report, {"throughput_x": gate})["int8"][0].passed == passed


def test_a_figure_that_is_null_fails_with_its_reason(report: Report) -> None:
    (result,) = check_gates(report, {"energy_x": Gate(min=1.0)})["int8"]
    assert not result.passed
    assert "energy_x is not known (not measured in this test)" in result.message


def test_an_unknown_figure_is_refused_with_the_nearest(report: Report) -> None:
    with pytest.raises(MeasurementError, match="no figure 'top1_drop'; did you mean 'top1_drop_pp'"):
        check_gates(report, {"top1_drop": Gate(max=1)})


def test_the_baseline_is_checked_only_when_named(report: Report, make_report: Any, make_model: Any) -> None:
    assert list(check_gates(report, {"top1": Gate(min=0.9)})) == ["int8"]
    assert list(check_gates(report, {"top1": Gate(min=0.9)}, models=["dense"])) == ["dense"]
    with pytest.raises(MeasurementError, match="holds 'dense' only"):
        check_gates(make_report(make_model()), {"top1": Gate(min=0.9)})


def test_results_are_written_into_the_report_and_required(report: Report) -> None:
    checked = with_gates(report, check_gates(report, read_limits(["speedup_p50_x=3"], ["top1_drop_pp=1"])))
    assert len(checked.model("int8").vs_baseline.gates) == 2
    with pytest.raises(GateFailedError, match="1 gate failed:\n  - int8: speedup_p50_x is 2, the limit is >= 3"):
        require_gates(checked)
    require_gates(report)
    assert checked.without_gates() == report


def test_limits_are_read_from_text() -> None:
    found = read_limits(["throughput_x=2", "top1=0.9"], ["top1 = 0.99"])
    assert (found["throughput_x"].min, found["top1"].min, found["top1"].max) == (2.0, 0.9, 0.99)


@pytest.mark.parametrize("text", ["top1", "top1=", "top1=high", "top1=nan", "top1=inf"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(MeasurementError, match="is not of the form name=number"):
        read_limits([text], [])


def test_limits_that_nothing_can_keep_are_refused() -> None:
    with pytest.raises(MeasurementError, match="cannot be at least 2 and at most 1"):
        read_limits(["top1=2"], ["top1=1"])


def test_figures_of_plugins_can_be_limited(make_report: Any, make_model: Any) -> None:
    extra = {"robust_pct": {"value": 71.0, "reason": None, "summary": "robust", "better": "higher"}}
    report = make_report(make_model(), make_model("int8", baseline="dense", extra=extra))
    assert check_gates(report, {"extra.robust_pct": Gate(min=70)})["int8"][0].passed
    (missing,) = check_gates(report, {"extra.robus_pct": Gate(min=70)})["int8"]
    assert "no plugin measured it for this model (measured: robust_pct)" in missing.message


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_found_or_has_a_reason(name: str, report: Report) -> None:
    for model in report.models:
        found = figure(name).find(model)
        assert (found.value is None) == bool(found.reason)


def test_a_baseline_lacks_what_is_against_a_baseline_and_nothing_else(report: Report) -> None:
    relative = {*VsBaseline.figures(), *Accuracy.figures(), "top1_drop_pp"} - {"top1", "top5", "nll", "ece"}
    assert relative & FIGURES.keys() == AGAINST_BASELINE
    assert all(figure(name).find(report.baseline).value is None for name in AGAINST_BASELINE)


def test_figures_that_are_known_are_found(report: Report) -> None:
    model = report.model("int8")
    expected = {
        "top1": 0.968, "top1_drop_pp": 0.2, "latency_p50_ms": 10.0, "images_per_s": 128.0, "artifact_bytes": 88e6,
        "params": 86e6, "macs": 17.6e9, "size_x": 3.9, "mcnemar_p": 0.34,
    }  # fmt: skip
    assert {name: figure(name).find(model).value for name in expected} == pytest.approx(expected)


def test_a_drop_of_nothing_is_zero_without_a_sign(make_model: Callable[..., Any]) -> None:
    model = make_model(accuracy=Accuracy.having("no", top1_delta_pp=0.0))
    assert str(figure("top1_drop_pp").find(model).value) == "0.0"
