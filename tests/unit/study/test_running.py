from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.study.conftest import MINI

from pah_opt.adapt.digits import digits_vit
from pah_opt.environment import Environment
from pah_opt.errors import ArtifactError, PahOptError, RecipeError
from pah_opt.measure.provenance import config_sha256, weights_sha256
from pah_opt.plugins import Origin
from pah_opt.progress import Progress
from pah_opt.recipe import Step
from pah_opt.registry import default_registry, using_registry
from pah_opt.storage.lock import locked
from pah_opt.study import bench, cells, naive
from pah_opt.study.reading import read_study
from pah_opt.study.results import StudyResult
from pah_opt.study.running import planned_cells, run_study
from pah_opt.study.schema import Row

REAL_DYNAMIC_INT8 = naive._dynamic_int8
EXACT = ("top1", "top1_drop_pp", "file_bytes", "size_x", "params", "sparsity_pct", "macs")
"""Figures that do not depend on how busy the machine is."""


def exact(result: StudyResult) -> dict[str, tuple[Any, ...]]:
    return {row.name: tuple(getattr(row.figures, name) for name in EXACT) for row in result.rows}


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(MINI), **changes}


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyResult]:
    folder = tmp_path_factory.mktemp("mini")
    return folder, run_study(MINI, folder)


def test_a_changed_recipe_recomputes_its_own_cell_only(mini: tuple[Path, StudyResult]) -> None:
    study = changed()
    study["sections"][0]["rows"][1]["steps"][0]["with"]["sparsity"] = 0.45
    again = run_study(study, mini[0])
    assert again.computed == 1
    before, after = exact(mini[1]), exact(again)
    assert before.pop("zeros-40") != after.pop("zeros-40")
    assert before == after


def test_renaming_and_moving_rows_recomputes_nothing(mini: tuple[Path, StudyResult]) -> None:
    study = changed(name="other", title="Another title")
    study["adaptations"] = {"renamed": study["adaptations"]["full"]}
    study["sections"][0]["rows"].reverse()
    study["sections"][0]["rows"][0]["name"] = "most"
    again = run_study(study, mini[0])
    assert again.computed == 0
    assert [row.name for row in again.rows] == ["dense", "most", "zeros-40", "zeros-20"]
    assert again.base == "renamed"


def test_another_seed_or_other_images_are_other_cells(mini: tuple[Path, StudyResult]) -> None:
    again = run_study(changed(seeds=[0, 1]), mini[0], only="zeros-20")
    assert again.computed == 3  # seed 1: the adaptation, the dense model, the row that was asked for
    line = again.line("zeros-20")
    assert line is not None
    assert line.top1_spread_pp is not None
    assert not again.complete


def test_a_damaged_cell_is_computed_again(mini: tuple[Path, StudyResult], tmp_path: Path) -> None:
    shutil.copytree(mini[0], tmp_path, dirs_exist_ok=True)
    cell = next(path for path in (tmp_path / "cells").iterdir() if '"zeros-60"' in path.read_text())
    cell.write_text(cell.read_text()[:50])
    again = run_study(MINI, tmp_path)
    assert again.computed == 1
    assert exact(again) == exact(mini[1])


def test_a_failing_cell_is_recorded_and_does_not_stop_the_others(mini: tuple[Path, StudyResult]) -> None:
    study = changed()
    too_many = {"name": "too-many", "steps": [{"use": "depth-pruning", "with": {"count": 99}}]}
    study["sections"][0]["rows"].insert(0, too_many)
    result = run_study(study, mini[0])
    assert list(result.failures) == ["too-many on full, seed 0"]
    assert "99" in result.failures["too-many on full, seed 0"]
    assert {row.name for row in result.rows if row.error is None} == {"dense", "zeros-20", "zeros-40", "zeros-60"}
    assert "too-many" in (mini[0] / "report.md").read_text(encoding="utf-8").partition("Cells that failed")[2]


def test_a_row_that_this_machine_cannot_run_is_told_apart_from_a_failure(
    mini: tuple[Path, StudyResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where torch's eager tool does not run, and where an optional library is missing."""
    monkeypatch.setattr(bench, "Environment", lambda: Environment(versions={"bitsandbytes": "0.1"}))
    monkeypatch.setattr(naive, "_dynamic_int8", lambda model, test: REAL_DYNAMIC_INT8(model.to("meta"), test))
    study = changed()
    study["sections"][0]["rows"] += [
        {"name": "eager", "version": "V1", "naive": "dynamic-int8"},
        {"name": "bnb", "steps": [{"use": "bitsandbytes", "with": {"scheme": "nf4"}}]},
    ]
    result = run_study(study, mini[0])
    assert result.failures == {}
    assert result.complete
    assert "runs on the CPU only" in result.unavailable["eager"]
    assert "bitsandbytes 0.1 is installed" in result.unavailable["bnb"]
    assert exact(mini[1]) == {name: figures for name, figures in exact(result).items() if name not in ("eager", "bnb")}
    assert (mini[0] / "report.md").read_text(encoding="utf-8").count("not available here") >= 2


def test_how_much_time_is_left_is_told_once_a_cell_was_computed(mini: tuple[Path, StudyResult]) -> None:
    class Recorder(Progress):
        def __init__(self) -> None:
            self.told: list[str] = []

        def message(self, text: str) -> None:
            self.told.append(text)

    recorder = Recorder()
    study = changed()
    too_many = {"name": "too-many", "steps": [{"use": "depth-pruning", "with": {"count": 99}}]}
    study["sections"][0]["rows"].insert(0, too_many)
    run_study(study, mini[0], progress=recorder)
    rows = [text for text in recorder.told if text.startswith("rows: ")]
    assert rows[:2] == ["rows: 1 of 5", "rows: 2 of 5"]
    assert [text.partition(", ")[2] for text in rows[2:]] == ["about 1 min left"] * 3


def test_a_study_whose_adaptations_all_fail_says_why_and_still_writes_its_report(tmp_path: Path) -> None:
    study = changed(adaptations={"only": {"mode": "last-layers", "last_blocks": 50}})
    with pytest.raises(PahOptError, match=r"(?s)every adaptation failed; the last one: .*50"):
        run_study(study, tmp_path)
    assert json.loads((tmp_path / "study.json").read_text())["adaptations"][0]["error"]


def test_only_that_matches_nothing_lists_the_rows(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'sparse-\\*'; rows: zeros-20, zeros-40, zeros-60"):
        run_study(MINI, tmp_path, only="sparse-*")
    with pytest.raises(RecipeError, match="'sparse-\\*'; rows"):
        planned_cells(read_study(MINI), ["zeros-20", "sparse-*"])


def test_two_studies_in_one_folder_are_refused(tmp_path: Path) -> None:
    """They would compute the same cells side by side, and time one another."""
    with locked(tmp_path, "study", ArtifactError), pytest.raises(ArtifactError, match="another study is at work"):
        run_study(MINI, tmp_path)


def test_several_patterns_choose_what_any_of_them_matches() -> None:
    rows = [cell.name for cell in planned_cells(read_study(MINI), ["zeros-6*", "zeros-20"]) if cell.kind == "row"]
    assert rows == ["zeros-20", "zeros-60"]


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
def test_a_killed_study_resumes_at_the_first_missing_cell_with_the_same_result(
    mini: tuple[Path, StudyResult], tmp_path: Path
) -> None:
    code = "import json, sys; from pah_opt.study import run_study; run_study(json.loads(sys.argv[1]), sys.argv[2])"
    with subprocess.Popen([sys.executable, "-c", code, json.dumps(MINI), str(tmp_path)]) as running:
        cells = tmp_path / "cells"
        deadline = time.monotonic() + 240
        while len(list(cells.glob("[!.]*.json")) if cells.exists() else []) < 3 and time.monotonic() < deadline:
            assert running.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)
    done = len(list(cells.glob("[!.]*.json")))
    assert 3 <= done < 5
    result = run_study(MINI, tmp_path)
    assert result.computed == 5 - done
    assert exact(result) == exact(mini[1])


@pytest.mark.parametrize(
    ("name", "value"), [("num_attention_heads", 2), ("layer_norm_eps", 0.1), ("hidden_act", "relu")]
)
def test_an_edited_config_is_another_model_though_its_weights_are_the_same(name: str, value: object) -> None:
    model = digits_vit()
    before, weights = config_sha256(model), weights_sha256(model)
    model.config.update({"_name_or_path": "elsewhere", "transformers_version": "0"})
    assert config_sha256(model) == before
    model.config.update({name: value})
    assert config_sha256(model) != before
    assert weights_sha256(model) == weights
    assert config_sha256(torch.nn.Linear(2, 2)) is None


def test_an_edited_config_computes_every_cell_again(
    mini: tuple[Path, StudyResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edited() -> torch.nn.Module:
        model = digits_vit()
        model.config.layer_norm_eps = 1e-3
        return model

    shutil.copytree(mini[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr("pah_opt.adapt.digits.digits_vit", edited)
    assert run_study(MINI, tmp_path, only="zeros-20").computed == 3  # the adaptation, the dense model, the row


def test_cells_of_two_kinds_of_device_differ() -> None:
    assert bench.machine("mps") != bench.machine("cpu")


def test_the_version_of_a_plugin_belongs_to_the_cells_that_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = default_registry()
    foreign = replace(registry.get("magnitude-pruning"), origin=Origin("mine", "pah-opt-mine", "1", "mine"))
    with using_registry(replace(registry, optimizers={**registry.optimizers, "magnitude-pruning": foreign})):
        monkeypatch.setattr(cells, "installed_version", {"pah-opt-mine": "1.2"}.get)
        assert cells.step_versions([Step.of("magnitude-pruning"), Step.of("compile")]) == {"pah-opt-mine": "1.2"}


def test_the_versions_of_what_prepares_images_belong_to_every_cell() -> None:
    assert {"numpy", "pillow"} <= set(cells.core_versions())


def test_the_version_of_what_a_strategy_needs_belongs_to_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "installed_version", {"torchao": "0.18", "bitsandbytes": "0.50"}.get)
    assert cells.step_versions([Step.of("torchao"), Step.of("magnitude-pruning")]) == {"torchao": "0.18"}


def test_a_library_that_is_installed_later_computes_no_cell_again_that_has_no_use_for_it(
    mini: tuple[Path, StudyResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cells.installed_version
    monkeypatch.setattr(cells, "installed_version", lambda name: "9.9" if name in cells.OPTIONAL[:3] else real(name))
    assert run_study(MINI, mini[0]).computed == 0
    monkeypatch.setattr(cells, "installed_version", lambda name: "9.9" if name == "torch" else real(name))
    assert run_study(MINI, mini[0], only="zeros-20").computed == 3  # the adaptation, the dense model, the row


OWN = (
    ("training stopped: the loss became nan", RuntimeWarning, "pah_opt.strategies.training.recovery"),
    ("a cannot be compiled; it runs as it was", UserWarning, "pah_opt.strategies.runtime.compiled"),
    ("the model is at chance on these images before any step", RuntimeWarning, "pah_opt.pipeline.running"),
)
OTHERS = (("of torch", UserWarning, "torch.nn"), ("of torch, called here", FutureWarning, "pah_opt.pipeline.running"))


def test_everything_the_library_warns_of_is_noted_and_nothing_else(
    mini: tuple[Path, StudyResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bench.apply

    def warning(*args: Any, **options: Any) -> Any:
        for number, (message, category, module) in enumerate((*OWN, *OTHERS)):
            warnings.warn_explicit(message, category, "a_file.py", number, module)
        return real(*args, **options)

    monkeypatch.setattr(bench, "apply", warning)
    study = changed()
    study["sections"][0]["rows"][0]["steps"][0]["with"]["sparsity"] = 0.21
    line = run_study(study, mini[0], only="zeros-20").line("zeros-20")
    assert line is not None
    assert line.notes == tuple(message for message, _, _ in OWN)


def test_naive_rows_stay_quiet() -> None:
    with warnings.catch_warnings(record=True) as caught:
        bench._listen(Row(name="naive", version="V1", naive="dynamic-int8"))
        warnings.warn_explicit("outdated", RuntimeWarning, "a_file.py", 1, "pah_opt.study.naive")
    assert caught == []


def test_a_report_that_is_written_again_keeps_the_date_of_its_measurements(
    mini: tuple[Path, StudyResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Later:
            return cls(2099, 1, 1, tzinfo=tz)

    monkeypatch.setattr("pah_opt.study.running.datetime", Later)
    again = run_study(MINI, mini[0])
    assert again.computed == 0
    assert again.conditions.measured_utc == mini[1].conditions.measured_utc
