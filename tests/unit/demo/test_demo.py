from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import pah_opt.demo.run as demo
from pah_opt import Recipe
from pah_opt.adapt.digits import SETTINGS as TRAINING
from pah_opt.adapt.digits import train_digits_vit
from pah_opt.demo import demo_recipes, run_demo
from pah_opt.measure.settings import MeasureSettings
from pah_opt.registry import default_registry, validate

if TYPE_CHECKING:
    from pathlib import Path


def test_the_demo_has_at_least_six_recipes_with_zeros_widths_bytes_and_combinations() -> None:
    recipes = demo_recipes()
    steps = [{step.use for step in recipe.steps} for recipe in recipes]
    assert len(recipes) >= 6
    assert sum(len(uses - {"recover"}) > 1 for uses in steps) >= 2
    assert {"magnitude-pruning", "sparsegpt", "structured-pruning", "torchao"} <= set().union(*steps)


@pytest.mark.parametrize("recipe", demo_recipes(), ids=lambda recipe: recipe.name)
def test_demo_recipes_are_valid(recipe: Recipe) -> None:
    from pah_opt.environment import Environment

    assert validate(recipe, default_registry(), environment=Environment()).steps


@pytest.mark.slow
def test_the_demo_goes_the_whole_way_and_writes_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a little training only; CI also runs the whole of it."""

    def briefly(**options: Any) -> Any:
        return train_digits_vit(settings=TRAINING.model_copy(update={"epochs": 2}), **options)

    monkeypatch.setattr(demo, "train_digits_vit", briefly)
    monkeypatch.setattr(demo, "demo_recipes", lambda: demo_recipes()[:1])
    outcome = run_demo(tmp_path / "out", settings=MeasureSettings.quick(batch_sizes=(1,), throughput_s=0.02))
    assert "loss of the dense model" in outcome.report.curves
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.json", "report.md", "accuracy-size.png", "loss-of-the-dense-model.png"} <= names
