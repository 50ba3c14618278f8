from __future__ import annotations

import pytest
from click.testing import CliRunner

from pah_opt.cli import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-space"], "unknown search space"),
        (["small", "--limit", "file_md=3"], "did you mean 'file_mb'"),
        (["small", "--limit", "file_mb"], "not of the form NAME=NUMBER"),
        (["small", "--limit", "file_mb=30", "--limit", "file_mb=20"], "--limit file_mb is given twice, 30 and 20"),
        (["small", "--limit", "latency_ms=3", "--limit", "speedup_x=2"], "limit the same figure"),
        (["steps: [{use: torchao"], "this is not a search space"),
    ],
)
def test_wrong_input_is_said_before_anything_is_loaded(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(main, ["search", "--model", "/nowhere", "--data", "/nowhere", *arguments])
    assert done.exit_code == 2
    assert said in done.stderr
