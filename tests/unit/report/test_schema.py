from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pah_opt.errors import MeasurementError
from pah_opt.measure.schema import Energy, Latency
from pah_opt.report import Curve, Report


def test_a_report_reads_back_equal(report: Report) -> None:
    report = report.with_curves(**{"a loss": Curve(x=(1, 2), y=(0.5, 0.25))})
    assert Report.from_json(report.to_json()) == report


def test_a_report_is_saved_and_loaded_whole(report: Report, tmp_path: Path) -> None:
    path = report.save(tmp_path / "deep" / "report.json")
    assert Report.load(path) == report
    assert [entry.name for entry in path.parent.iterdir()] == ["report.json"]


def test_every_group_and_field_of_the_specification_is_there(report: Report) -> None:
    """The fields of the standard measurements, as published."""
    data = report.to_data()
    model, timing = data["models"][0], data["models"][0]["timings"][0]
    expected = {
        "run": "schema_version run_id timestamp_utc",
        "env": "device_name device_uuid device_count mig driver cuda cpu_model threads torch transformers pah_opt "
               "plugins sm_clock_mhz_mean throttle_reasons other_gpu_processes",
        "provenance": "recipe_sha256 weights_sha256 weights_origin dataset_revision split n_images seed git_commit",
        "workload": "batch_size input_shape dtype compile_mode cuda_graphs tf32 warmup_iters iters rounds",
        "accuracy": "top1 top5 top1_delta_pp top1_ci95_pp flips_to_wrong flips_to_right mcnemar_p "
                    "agreement_with_baseline nll ece",
        "latency": "mean_ms std_ms min_ms p50_ms p90_ms p95_ms p99_ms max_ms iqr_ms n method wall_p50_ms compile_s "
                   "first_call_ms",
        "throughput": "images_per_s duration_s images",
        "memory": "weights_bytes peak_allocated_bytes peak_reserved_bytes process_vram_bytes host_rss_peak_bytes "
                  "artifact_bytes",
        "energy": "gpu_energy_j j_per_image images_per_j mean_power_w idle_power_w duration_s source window_ok",
        "utilization": "gpu_pct_mean mem_pct_mean samples period_ms mfu_pct",
        "model": "params params_nonzero sparsity_pct macs flops flops_method",
        "vs_baseline": "speedup_p50_x throughput_x size_x energy_x baseline_id gates",
    }  # fmt: skip
    for group, fields in expected.items():
        found = data.get(group) or model.get(group) or timing.get(group)
        assert set(fields.split()) <= set(found), group


def test_null_needs_a_reason() -> None:
    with pytest.raises(ValidationError, match=r"gpu_energy_j.*null without a reason"):
        Energy(**dict.fromkeys(Energy.figures()))


def test_a_reason_for_a_figure_that_is_there_is_refused() -> None:
    values: dict[str, Any] = dict.fromkeys(Energy.figures(), 1.0) | {"source": "x", "window_ok": True}
    with pytest.raises(ValidationError, match="explains gpu_energy_j, which is not null"):
        Energy(**values, reasons={"gpu_energy_j": "never"})


def test_having_gives_every_missing_figure_its_reason() -> None:
    found = Latency.having("not asked for", {"p99_ms": "too few"}, p50_ms=3.0)
    assert found.reasons["p99_ms"] == "too few"
    assert found.reasons["mean_ms"] == "not asked for"
    assert "p50_ms" not in found.reasons


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(value: float) -> None:
    with pytest.raises(ValidationError):
        Latency.having("no", p50_ms=value)


def test_unknown_fields_are_refused(report: Report) -> None:
    data = report.to_data()
    data["models"][0]["memory"]["vram"] = 1
    with pytest.raises(MeasurementError, match=r"is no report \(1 problem\): models.0.memory.vram"):
        Report.from_json(json.dumps(data))


def test_a_newer_schema_is_refused_by_its_version(report: Report) -> None:
    data = report.to_data()
    data["run"]["schema_version"] = "2.0"
    data["new_group"] = {}
    with pytest.raises(MeasurementError, match=r"old\.json has schema version 2\.0; this version of pah_opt reads 1"):
        Report.from_json(json.dumps(data), "old.json")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"models": 3}', "null"])
def test_what_is_no_report_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MeasurementError, match=r"x\.json is no report"):
        Report.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"gone\.json cannot be read"):
        Report.load(tmp_path / "gone.json")


def test_a_folder_that_cannot_be_written_is_named(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(MeasurementError, match="cannot be written"):
        report.save(tmp_path / "file" / "report.json")


def test_an_unknown_model_is_refused_with_the_nearest(report: Report) -> None:
    with pytest.raises(MeasurementError, match="no model 'int'; did you mean 'int8'"):
        report.model("int")


def test_names_are_unique_and_the_baseline_is_one_of_them(report: Report) -> None:
    with pytest.raises(ValidationError, match="two models have the name 'dense'"):
        Report(env=report.env, baseline_id="dense", models=(report.baseline, report.baseline))
    with pytest.raises(ValidationError, match="baseline 'x' is none of the models"):
        Report(env=report.env, baseline_id="x", models=report.models)


def test_a_curve_needs_as_many_x_as_y() -> None:
    with pytest.raises(ValidationError, match="there are 2 and 1"):
        Curve(x=(1, 2), y=(1,))


def test_the_smallest_and_largest_batches_are_found(report: Report) -> None:
    model = report.baseline
    assert model.latency_timing is not None
    assert model.throughput_timing is not None
    assert (model.latency_timing.workload.batch_size, model.throughput_timing.workload.batch_size) == (1, 32)
