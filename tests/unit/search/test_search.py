"""Whole searches on a tiny model."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from click.testing import CliRunner
from torch import nn

import pah_opt
from pah_opt.cli import main
from pah_opt.errors import DataError, MeasurementError, RecipeError, SearchError
from pah_opt.measure.settings import MeasureSettings
from pah_opt.optimizer import OptimizerConfig
from pah_opt.progress import Progress
from pah_opt.registry import default_registry
from pah_opt.search import Budget, Record, SearchResult, loop, searching
from pah_opt.search.engines import Engine, Job, Local
from pah_opt.splits import Data
from pah_opt.storage.lock import locked
from pah_opt.testing import tiny_vit
from pah_opt.workflow import Source

HERE = Path(__file__).parent
SPACE = """
name: tiny
steps:
  - {use: magnitude-pruning, optional: true, with: {sparsity: {low: 0.05, high: 0.9}}}
  - {use: structured-pruning, optional: true, with: {mlp: {choices: [0.25, 0.5]}}}
"""
TROUBLE = """
name: trouble
steps:
  - {use: misbehaving, with: {how: {choices: [well, crash, memory]}}}
"""


def tiny_search(model: nn.Module, data: Data, **options: Any) -> SearchResult:
    given: dict[str, Any] = {"space": SPACE, "trials": 9, "calibration_images": 16} | options
    given |= {"measure": MeasureSettings.quick(groups={"accuracy"})}
    budget = given.pop("budget", {"minimise": "size", "top1_drop_pp": 40})
    found: SearchResult = pah_opt.search(model, data, budget, **given)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search") / "out"


@pytest.fixture(scope="module")
def found(model: nn.Module, data: Data, folder: Path) -> SearchResult:
    return tiny_search(model, data, out=folder)


def test_the_front_keeps_the_limits_and_nothing_judged_beats_it(found: SearchResult) -> None:
    kept = [record for record in found.records if record.keeps(found.budget)]
    assert len(found.records) == 9
    assert found.front
    assert found.front[0].figures["artifact_bytes"] == min(record.figures["artifact_bytes"] or 0 for record in kept)
    drops = [record.figures["top1_drop_pp"] or 0 for record in found.front]
    assert drops == sorted(drops, reverse=True), "whoever pays more loses less"


def test_the_time_of_a_search_counts_from_its_beginning(
    model: nn.Module, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Binding the space and cutting the images too, or a time limit would be another one for every space."""

    jumps = []

    def hour_long(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            jumps.append(3600.0)
            return step(*given)

        return run

    monkeypatch.setattr(searching, "time", SimpleNamespace(perf_counter=lambda: time.perf_counter() + sum(jumps)))
    monkeypatch.setattr(searching, "cut", hour_long(searching.cut))
    monkeypatch.setattr(searching.BoundSpace, "of", hour_long(searching.BoundSpace.of))
    assert tiny_search(model, data, trials=1).records[0].at_s > 7200.0


def test_the_pick_is_measured_on_test_images_with_an_interval_and_its_gates(found: SearchResult, data: Data) -> None:
    assert found.report is not None
    assert found.pick is not None
    picked = next(m for m in found.report.models if m.id == "tiny-pick")
    assert picked.provenance.n_images == len(data.test)
    assert picked.accuracy.top1_ci95_pp is not None
    assert {gate.metric for gate in picked.vs_baseline.gates} == set(found.pick.gates) == {"top1_drop_pp"}


def test_the_folder_holds_recipes_that_run_and_a_page_that_fetches_nothing(
    found: SearchResult, folder: Path, model: nn.Module
) -> None:
    written = [pah_opt.Recipe.from_yaml(path) for path in sorted((folder / "front").iterdir())]
    assert written == sorted(found.recipes(), key=lambda recipe: f"{recipe.name}.yaml")
    assert all(recipe.gates == found.budget.limits() for recipe in written)
    pah_opt.plan(model, pah_opt.Recipe.from_yaml(folder / "pick.yaml"))
    stored = json.loads((folder / "search.json").read_text())
    assert [Record.from_data(each) for each in stored["records"]] == list(found.records)
    page = (folder / "search.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert all(record.name in page for record in found.records)


def test_the_report_of_a_pick_goes_with_it_and_files_of_others_stay(found: SearchResult, tmp_path: Path) -> None:
    found.write(tmp_path)
    mine = [tmp_path / "front" / "tiny-0-with-my-recovery.yaml", tmp_path / "pick" / "notes.txt"]
    for path in (*mine, tmp_path / "front" / "tiny-99.yaml"):
        path.write_text("")
    report = tmp_path / "pick" / "report.json"
    replace(found, report=None).write(tmp_path)
    assert report.is_file(), "the same pick, whose report is not asked for yet"
    assert found.pick is not None
    replace(found, pick=found.pick.model_copy(update={"seed": 7}), report=None).write(tmp_path)
    assert not report.exists()
    replace(found, pick=None, report=None).write(tmp_path)
    assert not (tmp_path / "pick.yaml").exists()
    assert not (tmp_path / "front" / "tiny-99.yaml").exists()
    assert all(path.is_file() for path in mine)


def test_a_search_goes_on_without_repeating_a_trial(
    found: SearchResult, folder: Path, model: nn.Module, data: Data
) -> None:
    more = tiny_search(model, data, out=folder, trials=11)
    assert more.records[:9] == found.records
    assert more.dense == found.dense
    assert len(more.records) == 11
    recipes = [json.dumps((record.recipe or {}).get("steps")) for record in more.records]
    assert len(set(recipes)) == len(recipes)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"space": SPACE.replace("0.9", "0.8")}, "space"), ({"budget": {"minimise": "size"}}, "budget"),
     ({"calibration_images": 17}, "calibration_images"), ({"model": tiny_vit(image=16, hidden=32, seed=7)}, "model"),
     ({"training": 399}, "data"), ({"seed": 1}, "data and seed"),
     ({"validation_images": 60}, "data and validation_images")],
)  # fmt: skip
def test_the_storage_of_another_search_is_refused(
    change: dict[str, Any], named: str, found: SearchResult, folder: Path, model: nn.Module, data: Data
) -> None:
    assert data.train is not None
    other, training = change.pop("model", model), data.train.subset(range(change.pop("training", len(data.train))))
    given = data if len(training) == len(data.train) else Data(test=data.test, train=training)
    with pytest.raises(SearchError, match=f"holds another search: its {named} differs?[ ;]"):
        tiny_search(other, given, out=folder, **change)


def test_a_search_does_not_go_on_on_another_device(
    found: SearchResult, folder: Path, model: nn.Module, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pah_opt.search.searching.device_name", lambda _: "another GPU")
    with pytest.raises(SearchError, match="holds another search: its device differs"):
        tiny_search(model, data, out=folder)


def test_latencies_of_all_runs_are_relative_to_one_dense_latency(tmp_path: Path, model: nn.Module, data: Data) -> None:
    runs = [tiny_search(model, data, out=tmp_path, trials=trials, budget={"top1_drop_pp": 99}) for trials in (1, 2)]
    assert runs[0].dense["latency_p50_ms"] == runs[1].dense["latency_p50_ms"]


def test_a_file_that_is_no_storage_is_named(tmp_path: Path, model: nn.Module, data: Data) -> None:
    (tmp_path / "search.db").write_text("not a database " * 100)
    with pytest.raises(SearchError, match=r"search\.db cannot be read as a search"):
        tiny_search(model, data, out=tmp_path)


def test_two_searches_in_one_folder_are_refused(tmp_path: Path, model: nn.Module, data: Data) -> None:
    with locked(tmp_path, "search", SearchError), pytest.raises(SearchError, match="another search is at work"):
        tiny_search(model, data, out=tmp_path)


def test_crashes_and_lack_of_memory_are_recorded_and_the_space_is_exhausted(model: nn.Module, data: Data) -> None:
    result = tiny_search(model, data, space=TROUBLE, trials=20)
    states = {record.recipe["steps"][0]["with"]["how"]: record for record in result.records if record.recipe}
    assert {how: record.state for how, record in states.items()} == {
        "well": "done", "crash": "failed", "memory": "out-of-memory",
    }  # fmt: skip
    assert "kaput" in str(states["crash"].reason)
    assert result.exhausted


def test_trials_in_a_process_of_their_own_are_judged_as_here(model: nn.Module, data: Data) -> None:
    space = "steps: [{use: magnitude-pruning, with: {sparsity: {choices: [0.2, 0.9]}}}]"
    here, there = (
        tiny_search(model, data, space=space, trials=2, **options) for options in ({}, {"trial_limit_s": 90})
    )
    assert [record.state for record in there.records] == ["done", "done"]
    assert [record.figures for record in there.records] == [record.figures for record in here.records]


def test_a_strategy_that_another_process_cannot_find_is_said_before_any_trial(model: nn.Module, data: Data) -> None:
    with pytest.raises(SearchError, match=r"strategy 'misbehaving': known to this process only.*install the plugin"):
        tiny_search(model, data, space=TROUBLE, trial_limit_s=60)


class Messages(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def test_progress_says_the_front_and_the_time_left_and_does_not_fall_silent(
    model: nn.Module, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAY_S", 0.0)
    shown = Messages()
    result = tiny_search(model, data, trials=4, progress=shown)
    said = [line for line in shown.said if line.startswith("trial ")]
    assert len(said) == len(result.records) == 4
    assert re.search(r"; front: 1 recipe; 1 of 4 trials, at most \d+\.\d min left$", said[0])
    assert said[-1].endswith("4 of 4 trials, at most 0.0 min left")


class NoMachine(Engine):
    """A cluster that has lost every node."""

    slots = 0

    def start(self, job: Job) -> None:
        raise AssertionError("nothing can run")

    def wait(self) -> list[tuple[Job, Record]]:
        return []


def test_a_search_without_any_machine_left_waits_and_ends_with_its_time(
    model: nn.Module, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pah_opt.search.searching._Run._engine", lambda _: NoMachine())
    shown = Messages()
    result = tiny_search(model, data, minutes=0.05, progress=shown)
    assert result.records == ()
    assert shown.said.count(loop.NO_NODE) == 1


def test_ctrl_c_in_the_first_trial_is_said_and_binds_the_folder_to_nothing(
    tmp_path: Path, model: nn.Module, data: Data
) -> None:
    space = "steps: [{use: misbehaving, with: {how: {choices: [well, interrupt]}}}]"
    result = tiny_search(model, data, space=space, trials=1, out=tmp_path)
    assert result.interrupted
    assert "ctrl-C came before the first one ended" in str(result.why_no_pick)
    other = space.replace("interrupt", "fine")  # the same parameter, other choices
    assert len(tiny_search(model, data, space=other, trials=1, out=tmp_path).records) == 1


def test_time_that_is_up_before_the_first_trial_is_said(tmp_path: Path, model: nn.Module, data: Data) -> None:
    result = tiny_search(model, data, minutes=1e-5, out=tmp_path)
    assert not result.records
    assert "no trial was judged: the time was up before the first one ended" in str(result.why_no_pick)
    assert str(result.why_no_pick).endswith("give more minutes")


class FewerWays(OptimizerConfig):
    """Parameters of a plugin."""

    strength: float = 0.1
    how: Literal["well", "fine"] = "well"


class MoreWays(FewerWays):
    """Those of its next version."""

    how: Literal["well", "fine", "better"] = "well"  # type: ignore[assignment]  # a wider choice is the point


def test_a_plugin_whose_parameters_changed_is_another_search(
    tmp_path: Path, model: nn.Module, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = "steps: [{use: misbehaving, with: {strength: {low: 0, high: 1}, how: {any: true}}}]"
    strategy = type(default_registry().optimizers["misbehaving"].optimizer)
    monkeypatch.setattr(strategy, "config_type", FewerWays)
    tiny_search(model, data, space=space, trials=1, out=tmp_path)
    monkeypatch.setattr(strategy, "config_type", MoreWays)
    with pytest.raises(SearchError, match=r"its space differs \(with the versions of its plugins"):
        tiny_search(model, data, space=space, trials=2, out=tmp_path)


def test_a_storage_that_fails_is_said_in_words_and_what_was_found_is_kept(
    tmp_path: Path, model: nn.Module, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = loop.Loop._ended

    def then_broken(self: loop.Loop, trial: object, record: Record) -> Record:
        if len(self.records) == 2:
            with closing(sqlite3.connect(tmp_path / "search.db")) as storage:
                storage.execute("DROP TABLE trial_user_attributes")
        return ended(self, trial, record)

    monkeypatch.setattr(loop.Loop, "_ended", then_broken)
    with pytest.raises(SearchError, match=r"search\.db cannot be written: no such table.*; free space, then run"):
        tiny_search(model, data, out=tmp_path)
    assert len(json.loads((tmp_path / "search.json").read_text())["records"]) == 3
    assert (tmp_path / "pick.yaml").is_file()


def test_an_engine_that_fails_ends_the_search_and_what_was_found_is_kept(
    tmp_path: Path, model: nn.Module, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Local.start

    def failing(self: Local, job: Job) -> None:
        if job.record.number == 2:
            raise SearchError("the process for trials died while it started")
        start(self, job)

    monkeypatch.setattr(Local, "start", failing)
    with pytest.raises(SearchError, match="died while it started"):
        tiny_search(model, data, out=tmp_path)
    assert len(json.loads((tmp_path / "search.json").read_text())["records"]) == 2


def test_ctrl_c_keeps_what_was_found(model: nn.Module, data: Data) -> None:
    space = "steps: [{use: misbehaving, with: {strength: {low: 0, high: 1}, how: {choices: [well, well, interrupt]}}}]"
    result = tiny_search(model, data, space=space, trials=200, starts=False)
    assert result.interrupted
    assert all(record.state == "done" for record in result.records)
    assert len(result.records) < 200


def test_limits_that_nothing_can_meet_are_said_before_any_trial(model: nn.Module, data: Data) -> None:
    space = "steps: [{use: structured-pruning, with: {mlp: {low: 0.1, high: 0.5}}}]"
    with pytest.raises(
        RecipeError, match=r"(?s)params is limited to 1,000, and the least found .* nearest.*structured"
    ):
        tiny_search(model, data, space=space, budget={"params": 1000, "minimise": "size"})


def test_limits_can_be_loosened_in_a_folder_where_no_trial_ran(tmp_path: Path, model: nn.Module, data: Data) -> None:
    space = "steps: [{use: structured-pruning, with: {mlp: {low: 0.1, high: 0.5}}}]"
    with pytest.raises(RecipeError, match="params is limited"):
        tiny_search(model, data, space=space, budget={"params": 1000, "minimise": "size"}, out=tmp_path)
    loose = {"params": 1e9, "minimise": "size", "top1_drop_pp": 99}
    assert len(tiny_search(model, data, space=space, budget=loose, out=tmp_path, trials=1).records) == 1


def test_a_pick_that_cannot_be_measured_loses_nothing_and_one_that_was_is_not_measured_again(
    tmp_path: Path, model: nn.Module, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory")

    with monkeypatch.context() as patched:
        patched.setattr("pah_opt.search.searching.compare", out_of_memory)
        failed = tiny_search(model, data, out=tmp_path, trials=2)
    assert failed.report is None
    assert "could not be measured on the test images: RuntimeError: DefaultCPUAllocator" in failed.notes[0]
    assert json.loads((tmp_path / "search.json").read_text())["notes"] == list(failed.notes)
    assert (tmp_path / "pick.yaml").is_file()

    measured = tiny_search(model, data, out=tmp_path, trials=2)
    assert measured.report is not None
    assert not measured.notes
    monkeypatch.setattr("pah_opt.search.searching.compare", lambda *_, **__: pytest.fail("it was measured again"))
    assert tiny_search(model, data, out=tmp_path, trials=2).report == measured.report


def test_nsga2_proposes_every_trial_and_importances_are_shares_of_one(
    tmp_path: Path, model: nn.Module, data: Data
) -> None:
    given = {"sampler": "nsga2", "starts": False, "neighbours": False, "racing": False}
    result = tiny_search(model, data, out=tmp_path, trials=12, **given)
    assert {record.origin for record in result.records} <= {"sampler", "random"}
    assert sum(record.origin == "sampler" for record in result.records) > 6
    assert set(result.importances) == {"artifact_bytes", "top1_drop_pp"}
    for shares in result.importances.values():
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-6)
    page = (tmp_path / "search.html").read_text()
    for name, share in result.importances["artifact_bytes"].items():
        assert name in page
        assert f">{100 * share:.0f} %</td>" in page


def test_energy_is_refused_where_nothing_counts_it(model: nn.Module, data: Data) -> None:
    with pytest.raises(MeasurementError, match="energy, which cannot be measured here"):
        tiny_search(model, data, budget={"minimise": "energy"})


def test_training_images_are_needed(model: nn.Module, data: Data) -> None:
    with pytest.raises(DataError, match="cut from the training images"):
        tiny_search(model, Data(test=data.test))


@pytest.mark.parametrize(
    ("settings", "said"), [({"trails": 3}, "no setting 'trails'"), ({"trials": 0}, "trials is 0"),
                           ({"seed": -1}, "seed is -1; allowed: 0 to 4294967295"),
                           ({"trials": "10"}, "trials is '10'; it must be a whole number, at least 1"),
                           ({"trials": 2.5}, "trials is 2.5"), ({"trials": True}, "trials is True"),
                           ({"minutes": "3"}, "minutes is '3'; it must be a finite number above 0, or None"),
                           ({"minutes": float("nan")}, "minutes is nan"), ({"seed": None}, "seed is None"),
                           ({"trial_limit_s": float("inf")}, "trial_limit_s is inf"),
                           ({"racing": "no"}, "racing is 'no'; allowed: True, False"),
                           ({"address": None}, "address is None"),
                           ({"sampler": "tpee"}, "allowed: tpe, nsga2, random")],
)  # fmt: skip
def test_wrong_settings_are_named(settings: dict[str, Any], said: str, model: nn.Module, data: Data) -> None:
    with pytest.raises(RecipeError, match=said):
        pah_opt.search(model, data, {}, space=SPACE, **settings)


def test_where_no_trial_keeps_the_limits_the_nearest_is_named(model: nn.Module, data: Data) -> None:
    space = "steps: [{use: magnitude-pruning, with: {sparsity: {choices: [0.95, 0.98]}}}]"
    result = tiny_search(model, data, space=space, budget=Budget(minimise="size", top1_drop_pp=0), racing=False)
    assert result.pick is None
    assert "the nearest is search-" in str(result.why_no_pick)


@pytest.mark.slow
def test_a_killed_search_keeps_every_finished_trial(tmp_path: Path, model: nn.Module, data: Data) -> None:
    script = [sys.executable, str(HERE / "search_until_killed.py"), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    victim = subprocess.Popen(script, env=environment, stderr=subprocess.DEVNULL)
    seen = tmp_path / "finished"
    deadline = time.monotonic() + 120
    while (not seen.exists() or len(json.loads(seen.read_text())) < 3) and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL, "it had ended before it could be killed"
    finished = json.loads(seen.read_text())
    done = subprocess.run([*script, "4"], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    records = json.loads((tmp_path / "search.json").read_text())["records"]
    assert len(records) >= max(4, len(finished))
    assert records[: len(finished)] == finished
    assert len({record["number"] for record in records}) == len(records)


def test_the_command_shows_the_front_and_the_pick_and_fails_where_there_is_none(
    model: nn.Module, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(model, "tiny", "fine-tuned", data)
    monkeypatch.setattr("pah_opt.workflow.Source.load", lambda *_, **__: source)
    space = tmp_path / "space.yaml"
    space.write_text("steps: [{use: magnitude-pruning, with: {sparsity: {choices: [0.2, 0.95]}}}]")
    arguments = ["search", str(space), "--model", "tiny", "--data", "tiny", "--minimise", "size", "--trials", "2"]
    arguments += ["--validation-images", "100"]
    good = CliRunner().invoke(main, [*arguments, "--limit", "top1_drop_pp=99", "--out", str(tmp_path / "a")])
    assert good.exit_code == 0, good.stderr
    assert "The pick, on the test images:" in good.stdout
    assert "search-pick" in good.stdout
    assert f"written to {tmp_path / 'a'}: search.json, search.html, front, pick.yaml, pick\n" in good.stderr
    none = CliRunner().invoke(main, [*arguments, "--limit", "file_mb=0.05", "--limit", "top1_drop_pp=0", "--out",
                                     str(tmp_path / "b")])  # fmt: skip
    assert none.exit_code == 1
    assert "no trial" in none.stderr
    assert "search.html, front\n" in none.stderr, "there is no pick"
    assert (tmp_path / "b" / "search.html").is_file()
