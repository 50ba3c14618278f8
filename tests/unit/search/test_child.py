"""Trials in a process of their own; what judges there is a small module, so that no model need be loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pah_opt.errors import SearchError
from pah_opt.recipe import Recipe, Step
from pah_opt.registry import default_without
from pah_opt.search.child import Child
from pah_opt.search.judge import Judge
from pah_opt.search.racing import Rivals
from pah_opt.search.records import Record

JUDGE = '''
import os, signal, time
from dataclasses import replace
from types import SimpleNamespace

from pah_opt.registry import default_registry


class Odd:
    """Does what the name of the recipe says, and learns a timing of that name; cannot be started beside `broken`.

    `plugins` tells in `known` whether the plugin torchao is loaded there.
    """

    def __init__(self, broken):
        self.broken, self.table = broken, SimpleNamespace(times_ms={})

    def __setstate__(self, state):
        vars(self).update(state)
        if os.path.exists(self.broken):
            os._exit(3)

    def __call__(self, recipe, rivals, record):
        known = float(len(self.table.times_ms))
        if recipe.name == "plugins":
            known = float("torchao" in {each.origin.name for each in default_registry().plugins.loaded})
        self.table.times_ms[recipe.name] = 1.0
        if recipe.name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if recipe.name == "hangs":
            time.sleep(600)
        if recipe.name == "dies":
            os._exit(7)
        return replace(record, figures={"top1": 0.5, "process": float(os.getpid()), "known": known})
'''


def recipe(name: str) -> Recipe:
    return Recipe(name=name, steps=[Step.of("torchao")])


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A judge that does what the name of the recipe says."""
    (tmp_path / "odd_judge.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(tmp_path)
    import odd_judge  # type: ignore[import-not-found]  # written above

    yield odd_judge.Odd(str(tmp_path / "broken"))
    sys.modules.pop("odd_judge", None)


RECORD = Record(0, "done", None)


def test_a_trial_that_hangs_or_dies_is_recorded_and_the_next_one_runs(odd: Any) -> None:
    child = Child(odd, limit_s=20.0)
    try:
        first = child(recipe("fine"), Rivals({}), RECORD)
        child.limit_s = 0.3
        hung = child(recipe("hangs"), Rivals({}), RECORD)
        child.limit_s = 20.0
        dead = child(recipe("dies"), Rivals({}), RECORD)
        last = child(recipe("fine"), Rivals({}), RECORD)
    finally:
        child.close()
    assert first.figures["top1"] == last.figures["top1"] == 0.5
    assert first.figures["process"] != last.figures["process"]
    assert (hung.state, dead.state) == ("timed-out", "failed")
    assert "exit status 7" in str(dead.reason)


def test_a_process_that_the_system_kills_ran_out_of_memory_and_its_timings_outlive_it(odd: Any) -> None:
    child = Child(odd, limit_s=20.0)
    try:
        child(recipe("first"), Rivals({}), RECORD)
        killed = child(recipe("killed"), Rivals({}), RECORD)
        after = child(recipe("last"), Rivals({}), RECORD)
    finally:
        child.close()
    assert killed.state == "out-of-memory"
    assert after.figures["known"] == 1.0, "the new process knows what the first one timed"
    assert set(odd.table.times_ms) == {"first", "last"}, "and so does the search"


def test_a_process_that_does_not_start_again_fails_one_trial_and_not_the_search(odd: Any) -> None:
    child = Child(odd, limit_s=20.0)
    try:
        child(recipe("fine"), Rivals({}), RECORD)
        child.close()
        Path(odd.broken).touch()
        lost = child(recipe("fine"), Rivals({}), RECORD)
        Path(odd.broken).unlink()
        back = child(recipe("fine"), Rivals({}), RECORD)
    finally:
        child.close()
    assert (lost.state, back.state) == ("failed", "done")
    assert "exit status 3" in str(lost.reason)


def test_a_first_process_that_does_not_start_ends_the_search(odd: Any) -> None:
    Path(odd.broken).touch()
    with pytest.raises(SearchError, match="exit status 3"):
        Child(odd, limit_s=20.0)(recipe("fine"), Rivals({}), RECORD)


@pytest.mark.parametrize(("without", "loaded"), [([], 1.0), (["torchao"], 0.0)])
def test_the_process_loads_the_plugins_that_this_one_chooses(odd: Any, without: list[str], loaded: float) -> None:
    with default_without(without):
        child = Child(odd, limit_s=60.0)
        try:
            assert child(recipe("plugins"), Rivals({}), RECORD).figures["known"] == loaded
        finally:
            child.close()


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
