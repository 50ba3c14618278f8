"""Trials in a process of their own; what judges there is a small module, so that no model need be loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pah_opt.errors import SearchError
from pah_opt.recipe import Recipe, Step
from pah_opt.search.child import Child
from pah_opt.search.judge import Judge
from pah_opt.search.racing import Rivals
from pah_opt.search.records import Record

JUDGE = '''
import os, time
from dataclasses import replace


class Odd:
    """Does what the name of the recipe says."""

    def __call__(self, recipe, rivals, record):
        if recipe.name == "hangs":
            time.sleep(600)
        if recipe.name == "dies":
            os._exit(7)
        return replace(record, figures={"top1": 0.5, "process": float(os.getpid())})
'''


def recipe(name: str) -> Recipe:
    return Recipe(name=name, steps=[Step.of("torchao")])


def test_a_trial_that_hangs_or_dies_is_recorded_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_judge.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(tmp_path)
    import odd_judge  # type: ignore[import-not-found]  # written above

    child = Child(odd_judge.Odd(), limit_s=20.0)
    record = Record(0, "done", None)
    try:
        first = child(recipe("fine"), Rivals({}), record)
        child.limit_s = 0.3
        hung = child(recipe("hangs"), Rivals({}), record)
        child.limit_s = 20.0
        dead = child(recipe("dies"), Rivals({}), record)
        last = child(recipe("fine"), Rivals({}), record)
    finally:
        child.close()
        sys.modules.pop("odd_judge", None)
    assert first.figures["top1"] == last.figures["top1"] == 0.5
    assert first.figures["process"] != last.figures["process"]
    assert (hung.state, dead.state) == ("timed-out", "failed")
    assert "exit status 7" in str(dead.reason)


def test_a_judge_with_its_model_can_be_sent(judge: Judge) -> None:
    import pickle

    twin = pickle.loads(pickle.dumps(judge))
    record = Record(0, "done", None)
    step = Step.of("magnitude-pruning", sparsity=0.5)
    here, there = (each(Recipe(steps=[step]), Rivals({}), record) for each in (judge, twin))
    assert here.state == there.state == "done"
    assert here.figures["top1"] == there.figures["top1"]
    assert here.figures["artifact_bytes"] == there.figures["artifact_bytes"]


def test_what_cannot_be_sent_is_said() -> None:
    with pytest.raises(SearchError, match="search without a time limit"):
        Child(lambda recipe, rivals, record: record, limit_s=1.0)
