"""``pah-opt measure``, ``compare``, ``gate``, ``explain`` and ``doctor``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import torch
from click.testing import Result

from pah_opt.cli.compare import _row
from pah_opt.data import TensorSplit
from pah_opt.measure.schema import GateResult
from pah_opt.measure.settings import MeasureSettings
from pah_opt.report import Report, compare, with_gates
from pah_opt.report.difference import Change
from pah_opt.report.figures import FIGURES

Run = Callable[..., Result]
QUICK = ("--quick", "--batch", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT as transformers saves it."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=64, num_attention_heads=4, intermediate_size=128, num_hidden_layers=2, image_size=16, patch_size=8,
        num_labels=10,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("models") / "tiny"
    ViTForImageClassification(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def saved(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two equal models."""
    from transformers import ViTForImageClassification

    model = ViTForImageClassification.from_pretrained(folder).eval()
    pixels = torch.randn(12, 3, 16, 16)
    with torch.no_grad():
        labels = model(pixels).logits.argmax(dim=1)
    settings = MeasureSettings.quick(batch_sizes=(1,), throughput_s=0.05, groups={"accuracy", "latency", "throughput"})
    split = TensorSplit(pixels, labels, tuple("abcdefghij"))
    report = compare({"dense": model, "same": model}, split, settings=settings)
    return report.save(tmp_path_factory.mktemp("reports") / "report.json")


def test_measure_prints_a_table_and_writes_every_rendering(run: Run, folder: Path, tmp_path: Path) -> None:
    result = run("measure", str(folder), *QUICK, "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.stderr
    assert "tiny" in result.stdout
    assert result.stderr.endswith("out: report.json, report.md, report.csv, report.html\n")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"report.json", "report.html", "report.md"}
    assert Report.load(tmp_path / "out" / "report.json").baseline_id == "tiny"


def test_measure_as_json_is_the_report(run: Run, folder: Path) -> None:
    result = run("measure", str(folder), *QUICK, "--json")
    assert Report.from_json(result.stdout).baseline.model.params is not None


def test_measure_of_random_weights_says_so(run: Run, folder: Path) -> None:
    result = run("measure", str(folder), *QUICK, "--weights", "random")
    assert result.exit_code == 0, result.stderr
    assert "The weights of tiny are random" in " ".join(result.stdout.split())


@pytest.mark.parametrize("command", ["measure", "compare"])
def test_measure_and_compare_are_thorough_until_told_otherwise(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[MeasureSettings] = []

    def stop(*_: object, settings: MeasureSettings, **__: object) -> None:
        seen.append(settings)
        raise SystemExit(0)

    monkeypatch.setattr("pah_opt.workflow.measuring.measure_sources", stop)
    for thoroughness in ([], ["--full"], ["--quick"]):
        assert run(command, "digits", *thoroughness).exit_code == 0
    full, quick = MeasureSettings(), MeasureSettings.quick()
    assert seen == [full, full, quick]


def test_measure_of_nothing_that_is_known_is_refused(run: Run, tmp_path: Path) -> None:
    result = run("measure", str(tmp_path), *QUICK)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("batch", ["0", "-3", "many"])
def test_a_batch_that_is_none_is_refused(batch: str, run: Run, folder: Path) -> None:
    result = run("measure", str(folder), "--batch", batch)
    assert result.exit_code == 2
    assert "is neither a number of images nor 'best'" in result.stderr


def test_compare_measures_models_under_their_names(run: Run, folder: Path) -> None:
    result = run("compare", f"first={folder}", f"second={folder}", *QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    report = Report.from_json(result.stdout)
    assert [model.id for model in report.models] == ["first", "second"]


def test_compare_refuses_two_models_of_one_name(run: Run, folder: Path) -> None:
    result = run("compare", str(folder), str(folder))
    assert result.exit_code == 2
    assert "two models are called 'tiny'" in result.stderr


def test_compare_refuses_a_model_without_its_name(run: Run, folder: Path) -> None:
    result = run("compare", f"={folder}")
    assert result.exit_code == 2
    assert "has no name before the sign; write NAME=" in result.stderr


def test_compare_of_two_reports_says_what_changed(run: Run, saved: Path, tmp_path: Path) -> None:
    report = Report.load(saved)
    other = report.model_copy(update={"env": report.env.model_copy(update={"torch": "9.9"})})
    other.save(tmp_path / "other.json")
    result = run("compare", str(saved), str(tmp_path / "other.json"))
    assert result.exit_code == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert "→ 9.9" in text
    assert "not comparable: times (torch differs)" in text
    same = run("compare", str(saved), str(saved), "--json")
    assert json.loads(same.stdout)["not_comparable"] == {}


@pytest.mark.parametrize(
    ("figure", "before", "after", "written"),
    [
        ("top1_delta_pp", -0.222222, 0.5, "+0.72 points better"),
        ("sparsity_pct", 50.0, 40.0, "-10.00 points worse"),
        ("latency_p50_ms", 20.0, 30.0, "+50.0 % worse"),
        ("nll", 0.0, 0.1, "worse"),
    ],
)
def test_changes_of_points_are_written_in_points(figure: str, before: float, after: float, written: str) -> None:
    change = Change("int8", figure, before, after, FIGURES[figure].better)
    assert _row(change)[-1] == written


@pytest.mark.parametrize("command", ["explain", "gate", "compare"])
def test_a_folder_of_results_is_as_good_as_its_report(command: str, run: Run, saved: Path) -> None:
    limits = ("--min", "params=1") if command == "gate" else ()
    times = 2 if command == "compare" else 1
    of_folder, of_file = (run(command, *[str(path)] * times, *limits) for path in (saved.parent, saved))
    assert (of_folder.exit_code, of_folder.stdout) == (0, of_file.stdout)


def test_a_folder_without_a_report_is_unusable_input(run: Run, tmp_path: Path) -> None:
    result = run("explain", str(tmp_path))
    assert result.exit_code == 2
    assert "report.json" in result.stderr


def test_models_that_bring_their_reports_are_measured(run: Run, folder: Path, saved: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(folder, tmp_path / name)
        shutil.copy(saved, tmp_path / name)
    result = run("compare", str(tmp_path / "a"), str(tmp_path / "b"), *QUICK, "--json")
    assert [model.id for model in Report.from_json(result.stdout).models] == ["a", "b"]


def test_compare_takes_two_reports_only(run: Run, saved: Path) -> None:
    result = run("compare", *[str(saved)] * 3)
    assert result.exit_code == 2
    assert "two reports can be compared; 3 were given" in result.stderr


def test_gate_passes_and_fails_by_its_exit_status(run: Run, saved: Path) -> None:
    kept = run("gate", str(saved), "--max", "top1_drop_pp=0", "--min", "params=1")
    assert kept.exit_code == 0, kept.stderr
    assert "passed  same: top1_drop_pp is 0, the limit is <= 0" in kept.stdout
    broken = run("gate", str(saved), "--min", "speedup_p50_x=50")
    assert broken.exit_code == 1
    assert "FAILED  same: speedup_p50_x is" in broken.stdout
    assert "error: 1 of 1 gates failed" in broken.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max", "top1_dorp_pp=1"), "did you mean 'top1_drop_pp'?"),
        (("--max", "top1_drop_pp"), "is not of the form name=number"),
        (("--min", "params=1", "--model", "samee"), "did you mean 'same'?"),
        ((), "holds no gates of a recipe; give limits with --max or --min"),
        (("--model", "samee"), "did you mean 'same'?"),
        (("--model", "same"), "hold no gates of a recipe; give limits with --max or --min"),
        (("--max", "params=1", "--max", "params=2"), "--max is given twice for params (1 and 2); give it once"),
    ],
)
def test_gate_tells_bad_input_from_a_failed_gate(
    arguments: tuple[str, ...], message: str, run: Run, saved: Path
) -> None:
    result = run("gate", str(saved), *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_gates_that_could_not_be_checked_are_no_success(run: Run, saved: Path, tmp_path: Path) -> None:
    unchecked = GateResult(metric="top1_drop_pp", limit="<= 1", value=None, passed=None, message="dense: no baseline")
    with_gates(Report.load(saved), {"dense": (unchecked,)}).save(tmp_path / "report.json")
    result = run("gate", str(tmp_path / "report.json"))
    assert result.exit_code == 2
    assert "not checked  dense: no baseline" in result.stdout
    assert "measure it beside its dense model" in " ".join(result.stderr.split())


def test_gate_writes_junit(run: Run, saved: Path, tmp_path: Path) -> None:
    run("gate", str(saved), "--min", "speedup_p50_x=50", "--junit", str(tmp_path / "gates.xml"))
    (suite,) = ET.parse(tmp_path / "gates.xml").getroot()
    assert suite.get("failures") == "1"


def test_gate_as_json_holds_values(run: Run, saved: Path) -> None:
    (gate,) = json.loads(run("gate", str(saved), "--min", "params=1", "--json").stdout)
    assert (gate["metric"], gate["passed"]) == ("params", True)


def test_gate_lists_what_can_be_limited(run: Run) -> None:
    result = run("gate", "--list")
    assert result.exit_code == 0
    assert "top1_drop_pp" in result.stdout


def test_gate_lists_figures_as_json_too(run: Run) -> None:
    listed = {each["name"]: each for each in json.loads(run("gate", "--list", "--json").stdout)}
    assert listed["latency_p50_ms"]["unit"] == "ms"
    assert all(all(each.values()) for each in listed.values())


def test_gate_without_a_report_says_what_is_missing(run: Run) -> None:
    result = run("gate", "--max", "top1_drop_pp=1")
    assert result.exit_code == 2
    assert "Missing argument 'REPORT'" in result.stderr


@pytest.mark.parametrize("command", ["explain", "compare", "gate"])
@pytest.mark.parametrize("content", [None, "{}", "[" * 100_000], ids=["missing", "empty", "nested"])
def test_a_report_that_cannot_be_read_is_unusable_input(
    command: str, content: str | None, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    result = run(command, *[str(path)] * (2 if command == "compare" else 1))
    assert result.exit_code == 2
    assert "broken.json" in result.stderr


def test_help_shows_the_batch_as_it_must_be_written(run: Run) -> None:
    assert "--batch N|best" in run("measure", "--help").stdout


def test_explain_speaks_of_every_model(run: Run, saved: Path) -> None:
    result = run("explain", str(saved))
    assert result.exit_code == 0, result.stderr
    assert "It gives the baseline's answer for every image." in " ".join(result.stdout.split())
    assert "4×16" in result.stdout  # noqa: RUF001
    assert list(json.loads(run("explain", str(saved), "--json").stdout)) == ["same"]


def test_doctor_shows_the_machine_and_what_is_missing(run: Run) -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert torch.__version__ in text
    assert "cli-never: no-such-library is not installed; pip install 'pah-opt[never]'" in text


def test_doctor_as_json_holds_every_strategy(run: Run) -> None:
    found: dict[str, Any] = json.loads(run("doctor", "--json").stdout)
    runs = {item["name"]: item["runs_here"] for item in found["strategies"]}
    assert (runs["cli-shrink"], runs["cli-never"]) == (True, False)
    assert found["machine"]["threads"] == torch.get_num_threads()
