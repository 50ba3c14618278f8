from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import pah_opt
from pah_opt import Data, Recipe, Step
from pah_opt.data import TensorSplit
from pah_opt.errors import MeasurementError, PahOptError, RecipeError
from pah_opt.measure.settings import MeasureSettings
from pah_opt.report import Curve, Report
from pah_opt.testing import tiny_vit
from pah_opt.workflow import Source, require_writable, run_recipes, write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from pah_opt import Artifact

SETTINGS = MeasureSettings.quick(
    batch_sizes=(1,), warmup_s=0.0, warmup_iters=1, block_ms=1.0, min_rounds=3, max_rounds=3, throughput_s=0.02
)
SPARSE = Recipe(name="sparse", steps=(Step.of("magnitude-pruning", sparsity=0.5),))
IMPOSSIBLE = Recipe(name="impossible", steps=(Step.of("magnitude-pruning", sparsity=0.5, include=["no.such.layer"]),))


@pytest.fixture(scope="module")
def source() -> Source:
    model = tiny_vit()
    generator = torch.Generator().manual_seed(0)
    size = model.config.image_size
    names = tuple(f"class {i}" for i in range(model.config.num_labels))

    def split(name: str) -> TensorSplit:
        pixels = torch.randn(40, 3, size, size, generator=generator)
        return TensorSplit(pixels, torch.arange(40) % len(names), names, name)

    return Source(model, "tiny", "fine-tuned", Data(test=split("test"), train=split("train")))


def test_recipes_are_measured_beside_the_dense_model(source: Source) -> None:
    outcome = run_recipes(source, [SPARSE], settings=SETTINGS)
    assert [model.id for model in outcome.report.models] == ["dense", "sparse"]
    assert outcome.report.baseline_id == "dense"
    assert outcome.artifacts["sparse"].source == "tiny"
    assert outcome.artifacts["sparse"].weights_origin == "fine-tuned"


def test_a_recipe_that_fails_does_not_stop_the_others(source: Source) -> None:
    outcome = run_recipes(source, [IMPOSSIBLE, SPARSE], settings=SETTINGS)
    assert set(outcome.artifacts) == {"sparse"}
    assert "no.such.layer" in str(outcome.failures["impossible"])


def test_when_every_recipe_fails_the_first_error_is_raised(source: Source) -> None:
    with pytest.raises(PahOptError, match=r"no\.such\.layer"):
        run_recipes(source, [IMPOSSIBLE], settings=SETTINGS)


OTHER = Recipe(name="other", steps=SPARSE.steps)
INTERRUPTED = Recipe(name="interrupted", steps=SPARSE.steps)


@pytest.fixture
def interrupting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of the recipe ``interrupted``."""
    real = pah_opt.apply

    def apply(model: nn.Module, recipe: Recipe, *rest: Any, **options: Any) -> Artifact:
        if recipe.name == "interrupted":
            raise KeyboardInterrupt
        return real(model, recipe, *rest, **options)

    monkeypatch.setattr("pah_opt.workflow.runs.apply", apply)


@pytest.mark.usefixtures("interrupting")
def test_ctrl_c_in_a_later_recipe_leaves_the_figures_of_those_that_are_done(source: Source) -> None:
    outcome = run_recipes(source, [SPARSE, INTERRUPTED, OTHER], settings=SETTINGS)
    assert [model.id for model in outcome.report.models] == ["dense", "sparse"]
    assert set(outcome.artifacts) == {"sparse"}
    assert "interrupted: interrupted, other not run" in outcome.report.notes
    assert not outcome.report.complete


@pytest.mark.usefixtures("interrupting")
@pytest.mark.parametrize(("before", "processes"), [([], "1"), ([SPARSE], "2")])
def test_ctrl_c_ends_at_once_where_nothing_is_done_or_other_processes_wait(
    source: Source, monkeypatch: pytest.MonkeyPatch, before: list[Recipe], processes: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", processes)
    with pytest.raises(KeyboardInterrupt):
        run_recipes(source, [*before, INTERRUPTED], settings=SETTINGS)


@pytest.mark.parametrize("names", [("twice", "twice"), ("dense",)])
def test_names_must_differ_from_one_another_and_from_dense(source: Source, names: tuple[str, ...]) -> None:
    recipes = [Recipe(name=name, steps=SPARSE.steps) for name in names]
    with pytest.raises(RecipeError, match=repr(names[0])):
        run_recipes(source, recipes, settings=SETTINGS)


def test_the_folder_holds_the_report_in_every_form_and_the_models(source: Source, tmp_path: Path) -> None:
    outcome = run_recipes(source, [SPARSE], settings=SETTINGS)
    written = write_folder(tmp_path / "out", outcome, artifacts=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.json", "report.md", "report.csv", "report.html", "accuracy-size.png", "artifacts"} <= names
    assert set(written.files) == names - {"artifacts"} | {"artifacts/sparse"}
    assert Report.load(tmp_path / "out") == written.report
    again = pah_opt.load(tmp_path / "out" / "artifacts" / "sparse")
    pixels = next(source.data.test.batches(2)).pixel_values
    with torch.inference_mode():
        assert torch.equal(again.model(pixels).logits, outcome.artifacts["sparse"].model(pixels).logits)


def test_artifacts_of_an_earlier_run_are_kept_and_named(source: Source, tmp_path: Path) -> None:
    sparse, other = (run_recipes(source, [each], settings=SETTINGS) for each in (SPARSE, OTHER))
    assert write_folder(tmp_path, sparse, artifacts=True).earlier == ()
    (tmp_path / "artifacts" / "mine").mkdir()
    assert write_folder(tmp_path, other, artifacts=True).earlier == ("artifacts/sparse",)
    assert write_folder(tmp_path, other).earlier == ("artifacts/other", "artifacts/sparse")
    assert pah_opt.load(tmp_path / "artifacts" / "sparse").recipe == SPARSE


def test_plots_of_an_earlier_run_are_gone_and_other_files_are_kept(source: Source, tmp_path: Path) -> None:
    outcome = run_recipes(source, [SPARSE], settings=SETTINGS)
    write_folder(tmp_path, outcome, curves={"loss of old": Curve(x=(1, 2), y=(3, 4))})
    (tmp_path / "loss-mine.png").write_text("mine")
    write_folder(tmp_path, outcome, curves={"loss of new": Curve(x=(1, 2), y=(3, 4))})
    assert {path.name for path in tmp_path.glob("*.png")} == {"accuracy-size.png", "loss-mine.png", "loss-of-new.png"}


def test_where_nothing_can_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MeasurementError, match=r"file/out cannot be written to: .*choose another folder with --out"):
        require_writable(tmp_path / "file" / "out")


def test_a_folder_that_is_a_file_is_refused_and_kept(source: Source, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    outcome = run_recipes(source, [SPARSE], settings=SETTINGS)
    with pytest.raises(MeasurementError, match="out"):
        write_folder(tmp_path / "out", outcome)
    assert (tmp_path / "out").read_text() == "mine"
