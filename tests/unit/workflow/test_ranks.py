"""A recipe under a launcher of several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pah_opt.cli import main
from pah_opt.recipe import Recipe, Step
from pah_opt.testing import tiny_vit
from pah_opt.workflow import Source, is_main
from pah_opt.workflow.ranks import is_alone

SCRIPT = str(Path(__file__).with_name("apply_in_processes.py"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONWARNINGS": "ignore"}
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def run(folder: Path, *launcher: str) -> None:
    folder.mkdir()
    command = [sys.executable, *launcher, SCRIPT, str(folder)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def facts(folder: Path, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{rank}.json").read_text())
    return found


@pytest.mark.slow
def test_a_recipe_that_trains_gives_in_two_processes_what_it_gives_in_one(tmp_path: Path) -> None:
    run(tmp_path / "one")
    run(tmp_path / "two", *TWO)
    one, two, other = facts(tmp_path / "one"), facts(tmp_path / "two"), facts(tmp_path / "two", 1)
    assert [each["processes"] for each in (one, two, other)] == [1, 2, 2]
    assert [each["main"] for each in (one, two, other)] == [True, True, False]
    for name in ("losses", "weights"):
        assert two[name] == pytest.approx(one[name], rel=1e-3), name
        assert two[name] == other[name], f"{name}: both processes hold the same model"
    assert two["zeros"] == one["zeros"] > 0
    assert two["accuracy"] == other["accuracy"]
    assert two["accuracy"][0] == one["accuracy"][0], "the same model, classified whole batch by whole batch"
    assert [each["timed"] for each in (one, two, other)] == [[1, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize(("variables", "main"), [({}, True), ({"RANK": "0"}, True), ({"PMI_RANK": "3"}, False)])
def test_the_first_process_is_the_main_one(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], main: bool
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_main() is main


@pytest.mark.parametrize(
    ("variables", "alone"), [({}, True), ({"WORLD_SIZE": "1"}, True), ({"WORLD_SIZE": "2"}, False),
                             ({"OMPI_COMM_WORLD_SIZE": "4"}, False)],
)  # fmt: skip
def test_every_launcher_tells_how_many_processes_there_are(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], alone: bool
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_alone() is alone


def test_the_run_command_writes_nothing_in_the_other_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK", "1")
    source = Source(tiny_vit(), "tiny", "random", None)
    monkeypatch.setattr(Source, "load", lambda *_, **__: source)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(Recipe(steps=(Step.of("magnitude-pruning"),)).to_data()))
    arguments = ["run", str(recipe), "--model", "tiny", "--weights", "random", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "out").exists()
    assert not result.output


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_said_at_once(device: str) -> None:
    result = CliRunner().invoke(main, ["measure", "digits", "--data", "digits", "--device", device])
    assert result.exit_code == 2
    assert f"device '{device}' cannot be used here" in " ".join(result.stderr.split())
