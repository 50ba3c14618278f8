from __future__ import annotations

from typing import Any

import pytest

from pah_opt.measure.schema import Provenance
from pah_opt.report import Report
from pah_opt.report.difference import RATIOS, RELATIVE, Change, difference

OTHER_IMAGES = {"dataset_revision": "xyz"}


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


def test_another_baseline_makes_all_that_is_relative_to_it_incomparable(report: Report) -> None:
    found = difference(report, report.model_copy(update={"baseline_id": "int8"}))
    assert found.not_comparable == {"relative": "the baseline differs", "ratios": "the baseline differs"}
    figures = {change.figure for change in found.changes}
    assert figures.isdisjoint({*RELATIVE, *RATIOS})
    assert {"top1", "params", "artifact_bytes", "latency_p50_ms"} <= figures


def with_baseline(report: Report, **groups: Any) -> Report:
    changed = {name: getattr(report.baseline, name).model_copy(update=update) for name, update in groups.items()}
    dense = report.baseline.model_copy(update=changed)
    return report.model_copy(update={"models": (dense, *report.candidates)})


def test_a_baseline_of_other_size_is_another_whatever_its_name(report: Report) -> None:
    found = difference(report, with_baseline(report, model={"params": 22_000_000}))
    assert found.not_comparable == {"relative": "the baseline differs", "ratios": "the baseline differs"}
    assert "baseline's params: 86000000 → 22000000" in found.conditions


def test_a_baseline_of_other_weights_is_as_fast_and_not_as_right(report: Report) -> None:
    before, after = (with_baseline(report, provenance={"weights_sha256": digit * 64}) for digit in "ab")
    found = difference(before, after)
    assert found.not_comparable == {"relative": "the baseline's weights differ"}
    assert "throughput_x" in {change.figure for change in found.changes}
    assert "weights_sha256: aaaaaaaaaaaa… → bbbbbbbbbbbb…" in found.conditions


def test_other_images_leave_what_is_relative_and_counted(report: Report) -> None:
    figures = {change.figure for change in difference(report, with_baseline(report, provenance=OTHER_IMAGES)).changes}
    assert {"size_x", "params_x", "macs_x"} <= figures
    assert figures.isdisjoint({"top1_delta_pp", "agreement_with_baseline"})


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


@pytest.mark.parametrize(("before", "after"), [(-0.2, 0.5), (0.0, 0.3), (0.3, 0.0), (-0.4, -0.2)])
def test_a_change_across_or_below_zero_has_no_factor(before: float, after: float) -> None:
    assert Change("int8", "top1_delta_pp", before, after, "higher").factor is None
