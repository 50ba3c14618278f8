from __future__ import annotations

import pytest

from pah_opt.progress import Progress, TerminalProgress, default_progress


def test_silence_yields_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(Progress().track([1, 2, 3], "counting")) == [1, 2, 3]
    Progress().message("not shown")
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_nothing_is_shown() -> None:
    assert type(default_progress()) is Progress


def test_nested_loops_share_one_display(capsys: pytest.CaptureFixture[str]) -> None:
    """rich refuses a second live display; recovery inside a recipe is such a nested loop."""
    progress = TerminalProgress()
    seen = []
    for outer in progress.track(range(2), "outer"):
        seen += [(outer, inner) for inner in progress.track(iter(range(2)), "inner", total=2)]
        progress.message(f"done {outer}")
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1)]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "done 1" in captured.err


def test_a_loop_left_early_clears_its_bar() -> None:
    progress = TerminalProgress()
    loop = progress.track(range(3), "outer")
    next(loop)
    loop.close()
    assert list(progress.track([1], "again")) == [1]
