"""The code of docs/plugins.md, run in order in one folder, as its reader would."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner

from pah_opt.cli import main
from pah_opt.optimizer import Effect, Goal
from pah_opt.plugins import unregister
from pah_opt.plugins.contract import CHECKS
from pah_opt.testing import OptimizerContract

PAGE = (Path(__file__).parents[2] / "docs/plugins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_block_of_the_tutorial_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "tutorial"}
    try:
        for language, code in BLOCKS:
            if language == "python":
                exec(compile(code, "docs/plugins.md", "exec", dont_inherit=True), names)
            else:
                for line in code.splitlines():
                    program, *arguments = shlex.split(line)
                    assert program == "pah-opt", "blocks marked bash hold commands of pah-opt"
                    result = CliRunner().invoke(main, arguments)
                    assert result.exit_code == 0, result.output
    finally:
        unregister("my-plugin")
    assert (tmp_path / "row-zeros/src/row_zeros/strategy.py").is_file()
    assert (tmp_path / "row-zeros-artifact/manifest.json").is_file()
    assert issubclass(names["TestRowZeros"], OptimizerContract)


def table(head: str) -> list[list[str]]:
    """The cells of the table under this head, without their marks of code."""
    (rows,) = re.findall(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows.splitlines()]


def test_the_tutorial_lists_every_promise_with_its_default() -> None:
    assert [row[:2] for row in table("Field")] == [[each.name, repr(each.default)] for each in fields(Effect)]


def test_the_tutorial_lists_every_goal() -> None:
    assert tuple(row[0] for row in table("`goal`")) == get_args(Goal)


def test_the_tutorial_lists_every_hook() -> None:
    assert {hook for hook in CHECKS if f"| `{hook}` |" in PAGE} == set(CHECKS)
