from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pah_opt.cli import main
from pah_opt.cli.study import SCALES


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
