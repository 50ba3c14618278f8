"""The Python code of docs/recipes.md, run on a tiny model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pah_opt.testing import tiny_data, tiny_vit

PAGE = (Path(__file__).parents[2] / "docs/recipes.md").read_text(encoding="utf-8")


def test_the_code_on_sensitivity_and_guarded_runs_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    names = {"model": tiny_vit(hidden=64, mlp=128, blocks=2), "data": tiny_data()}
    exec(compile(code, "docs/recipes.md", "exec", dont_inherit=True), names)
    *layers, left = capsys.readouterr().out.splitlines()
    assert len(layers) == 5
    assert all(re.fullmatch(r"vit\.\S+: divergence \d+\.\d{4}, accuracy [+-]\d+\.\d points", line) for line in layers)
    assert left.startswith("[")
