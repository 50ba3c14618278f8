"""The numbered examples run, print what their heads say, and stay short."""

from __future__ import annotations

import ast
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from pah_opt.plugins import unregister
from pah_opt.plugins.registered import registered_plugins

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
NUMBERED = sorted(path.name for path in FOLDER.glob("[0-9][0-9]_*"))
NEEDS = {"10_search.py": ("optuna",), "13_serving.py": ("starlette", "uvicorn", "prometheus_client")}
MOST_LINES = 60


def head(example: Path) -> str:
    return ast.get_docstring(ast.parse(example.read_text(encoding="utf-8"))) or ""


def without_digits(text: str) -> list[str]:
    """Lines with every number replaced: what another machine prints must have the same form, not the same figures."""
    return [re.sub(r"[+-]?\d[\d,.]*", "#", line).strip() for line in text.strip().splitlines()]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a folder of its own; what an example registers in this process is not there for other tests."""
    monkeypatch.chdir(tmp_path)
    before = registered_plugins()
    yield
    for name in set(registered_plugins()) - set(before):
        unregister(name)


def test_examples_are_numbered_without_a_gap() -> None:
    assert [int(name[:2]) for name in NUMBERED] == list(range(1, len(NUMBERED) + 1))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_teaches(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    assert "Teaches:" in head(example)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_its_head_says(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for library in NEEDS.get(example.name, ()):
        pytest.importorskip(library)
    promised = head(example).split("Output:\n", 1)[1]
    try:
        runpy.run_path(str(example), run_name="__main__")
    except SystemExit as end:
        assert not end.code  # noqa: PT017  # an example may end with its exit status
    assert without_digits(capsys.readouterr().out) == without_digits(promised)


def test_the_notebook_runs_and_shows_what_its_head_says(capsys: pytest.CaptureFixture[str]) -> None:
    notebook = json.loads((FOLDER / "12_notebook.ipynb").read_text(encoding="utf-8"))
    namespace: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), namespace)
    promised = "".join(notebook["cells"][0]["source"]).split("Output:\n", 1)[1]
    shown = without_digits(capsys.readouterr().out)
    assert all(line in shown for line in without_digits(promised))
