from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from pah_opt.cli import main


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
