from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.unit.study.conftest import MINI

from pah_opt.cli import main
from pah_opt.cli.study import SCALES
from pah_opt.environment import Environment
from pah_opt.study import bench


def invoke(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["study", *arguments])
    return done.exit_code, done.output


def test_a_dry_run_lists_every_cell_and_runs_nothing(tmp_path: Path) -> None:
    code, output = invoke("tiny", "--dry-run", "--out", str(tmp_path), "--json")
    cells = json.loads(output)
    assert code == 0
    assert {cell["kind"] for cell in cells} == {"adaptation", "row"}
    assert list(tmp_path.iterdir()) == []


def test_only_keeps_the_rows_that_match() -> None:
    _, output = invoke("tiny", "--dry-run", "--only", "int8-*", "--json")
    names = {cell["name"] for cell in json.loads(output) if cell["kind"] == "row"}
    assert names
    assert all(name.startswith("int8-") for name in names)


@pytest.mark.parametrize("scale", SCALES)
def test_each_scale_is_a_study_that_comes_with_the_library(scale: str) -> None:
    code, output = invoke("--scale", scale, "--dry-run", "--json")
    assert code == 0
    names = {cell["name"] for cell in json.loads(output)}
    assert {"sparse-30-v1", "sparse-70", "int8-dynamic", "int8-qat", "bnb-int8", "blocks-1", "sparse-50-int8"} <= names


@pytest.mark.parametrize("arguments", [(), ("tiny", "--scale", "medium")])
def test_the_study_is_named_once(arguments: tuple[str, ...]) -> None:
    code, output = invoke(*arguments)
    assert code == 2
    assert "give either STUDY or --scale" in output


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """One row of a study of seconds, run by the command."""
    folder = tmp_path_factory.mktemp("study")
    code, output = invoke(written(folder, MINI), "--only", "zeros-20", "--lang", "fr", "--out", str(folder / "out"))
    return folder, code, output


def written(folder: Path, study: dict[str, Any]) -> str:
    path = folder / "mini.json"
    path.write_text(json.dumps(study), encoding="utf-8")
    return str(path)


def test_a_run_prints_the_comparison_and_ends_with_0(ran: tuple[Path, int, str]) -> None:
    _, code, output = ran
    assert code == 0, output
    assert "zeros-20" in output
    assert "zeros-40" not in output
    assert "base:" in output
    assert "3 cells" in output  # the adaptation, the dense model, the row


def test_a_run_in_french_writes_both_reports(ran: tuple[Path, int, str]) -> None:
    folder, _, output = ran
    files = ("study.json", "report.md", "report.html", "report.fr.md", "report.fr.html")
    assert f"written to {folder / 'out'}: {', '.join(files)}" in output
    assert {path.name for path in (folder / "out").iterdir()} >= set(files)
    assert "Observations" in (folder / "out" / "report.md").read_text(encoding="utf-8")
    assert "Constats" in (folder / "out" / "report.fr.md").read_text(encoding="utf-8")


def test_a_failed_cell_ends_with_1_and_its_reason(ran: tuple[Path, int, str]) -> None:
    study = copy.deepcopy(MINI)
    too_many = {"name": "too-many", "steps": [{"use": "depth-pruning", "with": {"count": 99}}]}
    study["sections"][0]["rows"].append(too_many)
    code, output = invoke(written(ran[0], study), "--only", "too-many", "--out", str(ran[0] / "out"))
    assert code == 1
    assert "too-many on full, seed 0 failed: " in output
    assert "99" in output


def test_a_row_that_cannot_run_here_ends_with_0(ran: tuple[Path, int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "Environment", lambda: Environment(versions={"bitsandbytes": "0.1"}))
    study = copy.deepcopy(MINI)
    study["sections"][0]["rows"].append({"name": "bnb", "steps": [{"use": "bitsandbytes", "with": {"scheme": "nf4"}}]})
    code, output = invoke(written(ran[0], study), "--only", "bnb", "--out", str(ran[0] / "out"))
    assert code == 0
    assert "bnb is not available here: bitsandbytes 0.1 is installed" in output


def test_a_wrong_study_ends_with_2_and_words(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("adaptation: {full: {}}\n", encoding="utf-8")
    code, output = invoke(str(path))
    assert code == 2
    assert "did you mean 'adaptations'" in output


def test_half_an_embedded_study_is_refused() -> None:
    code, output = invoke("tiny", "--data", "./somewhere")
    assert code == 2
    assert "'digits' stands for both or none" in output


def test_a_folder_called_digits_is_read_instead_of_the_embedded_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    code, output = invoke("tiny", "--out", "out")
    assert code == 2
    assert "the folder digits has no config.json" in output


def test_a_device_that_is_not_here_is_refused_in_words(tmp_path: Path) -> None:
    code, output = invoke("tiny", "--device", "gpu", "--out", str(tmp_path))
    assert code == 2
    assert "cannot be used here" in output
