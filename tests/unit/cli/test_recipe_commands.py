"""What ``plan`` and ``run`` say of a wrong recipe, before they load anything."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pah_opt.errors import MeasurementError
from pah_opt.measure.settings import MeasureSettings
from pah_opt.testing import tiny_vit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a model or its images were loaded")

    for name in ("sources.load_model", "loading.load_model", "loading.load_data"):
        monkeypatch.setattr(f"pah_opt.workflow.{name}", refuse)


EMBEDDED = ("--model", "digits", "--data", "digits")


@pytest.mark.usefixtures("nothing_loads")
@pytest.mark.parametrize("command", [("plan",), ("run", *EMBEDDED)])
def test_a_wrong_parameter_is_found_before_anything_is_loaded(
    command: tuple[str, ...], run: Callable[..., Result], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps: [{use: magnitude-pruning, with: {sparsty: 0.5}}]")
    result = run(*command, str(recipe))
    assert result.exit_code == 2
    assert "sparsty" in result.output
    assert "sparsity" in result.output


@pytest.mark.usefixtures("nothing_loads")
def test_plan_finds_a_wrong_order_before_it_builds_the_model(run: Callable[..., Result], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps: [{use: torchao, with: {scheme: int8-weight-only}}, {use: magnitude-pruning}]")
    result = run("plan", str(recipe))
    assert result.exit_code == 2
    assert "magnitude-pruning" in result.output


def test_plan_predicts_each_step_from_the_config_alone(run: Callable[..., Result], tmp_path: Path) -> None:
    tiny_vit().config.save_pretrained(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps: [{use: structured-pruning, with: {mlp: 0.5}}]")
    result = run("plan", str(recipe), "--model", str(tmp_path), "--no-data")
    assert result.exit_code == 0, result.output
    assert "1. structured-pruning" in result.output


def test_plan_tells_what_this_machine_is_slow_at(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pah_opt.strategies.torchao.apply.multiplies_int8", lambda device: False)
    tiny_vit().config.save_pretrained(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps: [{use: torchao, with: {scheme: int8-dynamic}}]")
    result = run("plan", str(recipe), "--model", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "1. torchao: this CPU has no int8 products (VNNI)" in " ".join(result.stdout.split())


def test_a_full_disk_does_not_take_the_figures_too(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MeasurementError("no space left")

    report = SimpleNamespace(to_data=lambda: {"measured": 1})
    monkeypatch.setattr("pah_opt.workflow.Source.load", lambda *_, **__: SimpleNamespace(data=None, model=None))
    monkeypatch.setattr("pah_opt.workflow.run_recipes", lambda *_, **__: SimpleNamespace(report=report))
    monkeypatch.setattr("pah_opt.workflow.write_folder", full)
    result = run("run", "cli-half", *EMBEDDED, "--json", "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert '"measured": 1' in result.stdout
    assert "no space left" in result.stderr


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[MeasureSettings]:
    """How thoroughly runs would measure; they end there, and load nothing."""
    asked: list[MeasureSettings] = []

    def stop(*_: object, settings: MeasureSettings, **__: object) -> None:
        asked.append(settings)
        raise SystemExit(0)

    monkeypatch.setattr("pah_opt.workflow.Source.load", lambda *_, **__: SimpleNamespace(data=None, model=None))
    monkeypatch.setattr("pah_opt.workflow.run_recipes", stop)
    monkeypatch.setattr("pah_opt.demo.run_demo", stop)
    return asked


def test_run_measures_the_batches_that_it_is_told(run: Callable[..., Result], seen: list[MeasureSettings]) -> None:
    for batches in ([], ["--batch", "8"]):
        assert run("run", "cli-half", *EMBEDDED, *batches).exit_code == 0
    assert [settings.batch_sizes for settings in seen] == [(1, 32), (8,)]


@pytest.mark.parametrize("command", [("run", "cli-half", *EMBEDDED), ("demo",)])
def test_run_and_demo_are_quick_until_told_otherwise(
    command: tuple[str, ...], run: Callable[..., Result], seen: list[MeasureSettings], tmp_path: Path
) -> None:
    for thoroughness in ([], ["--quick"], ["--full"]):
        assert run(*command, *thoroughness, "--out", str(tmp_path)).exit_code == 0
    quick, full = MeasureSettings.quick(), MeasureSettings()
    assert seen == [quick, quick, full]


@pytest.mark.parametrize("command", [("run", "cli-half"), ("search", "small")])
@pytest.mark.parametrize(("given", "missing"), [("--model", "--data"), ("--data", "--model")])
@pytest.mark.usefixtures("nothing_loads")
def test_model_and_images_are_asked_for_by_name(
    command: tuple[str, ...], given: str, missing: str, run: Callable[..., Result]
) -> None:
    result = run(*command, given, "digits")
    assert result.exit_code == 2
    assert f"Missing option '{missing}'" in result.stderr


@pytest.mark.parametrize("command", ["run cli-half", "search small", "adapt", "study --scale medium", "plan cli-half"])
def test_an_artifact_is_no_model_to_start_from(command: str, run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "artifact.json").write_text("{}")
    images = () if command.startswith("plan") else ("--data", "no-images", "--out", str(tmp_path / "out"))
    result = run(*command.split(), "--model", str(tmp_path), *images)
    assert result.exit_code == 2
    assert "recipes and adaptations start from a dense model" in result.stderr
    assert "pah-opt measure, compare and export take an artifact" in result.stderr


@pytest.mark.usefixtures("seen")
def test_random_weights_need_no_images(run: Callable[..., Result]) -> None:
    assert run("run", "cli-half", "--model", "digits", "--weights", "random").exit_code == 0
