from __future__ import annotations

from typing import Any

import pytest

from pah_opt.measure.schema import Provenance
from pah_opt.report import Report
from pah_opt.report.difference import difference


def test_the_same_report_differs_in_nothing(report: Report) -> None:
    found = difference(report, report)
    assert (found.same, found.conditions, found.not_comparable) == (("dense", "int8"), (), {})
    assert all(change.before == change.after for change in found.changes)
    assert {"top1", "latency_p50_ms", "params", "throughput_x"} <= {change.figure for change in found.changes}


def changed(report: Report, make_env: Any, **env: Any) -> Report:
    return report.model_copy(update={"env": make_env(**env)})


@pytest.mark.parametrize(
    ("env", "blocked"),
    [
        ({"device_name": "another"}, {"times", "ratios"}),
        ({"torch": "2.14.0"}, {"times"}),
        ({"threads": 4}, {"times"}),
        ({"transformers": "5.30"}, set()),
    ],
)
def test_another_device_or_version_makes_times_incomparable(
    env: dict[str, Any], blocked: set[str], report: Report, make_env: Any
) -> None:
    found = difference(report, changed(report, make_env, **env))
    assert set(found.not_comparable) == blocked
    (name, value) = next(iter(env.items()))
    assert any(text.startswith(f"{name}: ") and text.endswith(f"→ {value}") for text in found.conditions)
    figures = {change.figure for change in found.changes}
    assert {"params", "top1"} <= figures
    assert ("latency_p50_ms" in figures) == ("times" not in blocked)


def test_other_images_make_accuracy_incomparable(report: Report, make_report: Any, make_model: Any) -> None:
    other = make_report(make_model(provenance=Provenance.having("no", dataset_revision="xyz", split="cifar10:test")))
    found = difference(report, other)
    assert found.not_comparable["accuracy"] == "the images, their order or their preprocessing differ"
    assert "top1" not in {change.figure for change in found.changes}


def test_unknown_images_are_not_taken_for_the_same(make_report: Any, make_model: Any) -> None:
    nothing = make_report(make_model(provenance=Provenance.having("no images")))
    assert "accuracy" in difference(nothing, nothing).not_comparable


def test_another_baseline_makes_ratios_incomparable(report: Report) -> None:
    other = report.model_copy(update={"baseline_id": "int8"})
    assert set(difference(report, other).not_comparable) == {"ratios"}


def test_other_batches_make_times_incomparable(
    report: Report, make_report: Any, make_model: Any, make_timing: Any
) -> None:
    other = make_report(make_model(timings=(make_timing(8, 30, 100),)))
    assert "batch sizes" in difference(report, other).not_comparable["times"]


def test_models_that_came_and_went_are_named(report: Report, make_report: Any, make_model: Any) -> None:
    found = difference(report, make_report(make_model(), make_model("new", baseline="dense")))
    assert (found.same, found.only_before, found.only_after) == (("dense",), ("int8",), ("new",))


def test_contention_and_interruption_are_said(report: Report, make_env: Any) -> None:
    busy = changed(report, make_env, contended=True).model_copy(update={"complete": False})
    assert set(difference(report, busy).conditions) == {
        "after: other processes used the device", "after: the run was interrupted",
    }  # fmt: skip


def test_changes_have_a_factor(report: Report, make_report: Any, make_model: Any, make_timing: Any) -> None:
    slower = make_report(make_model(timings=(make_timing(1, 30, 50), make_timing(32, 500, 64))))
    change = next(c for c in difference(report, slower).changes if c.figure == "latency_p50_ms")
    assert (change.before, change.after, change.factor, change.better) == (20.0, 30.0, 1.5, "lower")
