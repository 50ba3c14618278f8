"""The shipped recipes: they can be planned on the model they are meant for, and run on a small one."""

from __future__ import annotations

import pytest
import torch

import pah_opt
from pah_opt import Data, Recipe, Step
from pah_opt.data import TensorSplit
from pah_opt.registry import default_registry
from pah_opt.testing import tiny_vit

PRESETS = default_registry().presets
GOALS = {"smallest", "fastest-gpu", "fastest-cpu", "balanced", "lossless", "two-four", "edge"}


def images(count: int, seed: int) -> TensorSplit:
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, 3, 32, 32, generator=random)
    return TensorSplit(pixels, torch.arange(count) % 10, tuple(map(str, range(10))))


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(test=images(20, 0), train=images(60, 1))


def small_widths(step: Step) -> Step:
    """The same step for a model whose feed-forward networks are narrower than one group of 64 units."""
    return Step.of(step.use, **{**step.with_, "align": 8}) if "align" in step.with_ else step


def test_there_is_a_preset_for_every_goal() -> None:
    assert set(PRESETS) >= GOALS


@pytest.mark.parametrize("name", sorted(GOALS))
def test_a_preset_has_gates_and_says_what_it_is_for(name: str) -> None:
    assert PRESETS[name].gates
    assert PRESETS[name].description.endswith(".")


@pytest.mark.parametrize("name", sorted(GOALS))
def test_a_preset_runs_and_keeps_its_promises(name: str, data: Data) -> None:
    steps = tuple(small_widths(step) for step in PRESETS[name].steps if step.use != "compile")
    model = tiny_vit(hidden=64, heads=4, mlp=256)
    artifact = pah_opt.apply(model, Recipe(name=name, steps=steps), data, on_collapse="ignore")
    assert [step.use for step in artifact.steps] == [step.use for step in steps]
    pixels = data.test.pixel_values.to(next(artifact.model.parameters()).dtype)
    assert artifact.model(pixels).logits.isfinite().all()
