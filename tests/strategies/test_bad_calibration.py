"""Calibration images that cannot be used are a named error of every pruning strategy, before any change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from pah_opt.environment import Environment
from pah_opt.errors import DataError, RecipeError
from pah_opt.models import find_adapter
from pah_opt.optimizer import Context
from pah_opt.recipe import Recipe, Step
from pah_opt.registry import default_registry
from pah_opt.registry.validate import validate
from pah_opt.splits import Batch
from pah_opt.testing import tiny_vit

STEPS = {
    "structured, surgeon": Step.of("structured-pruning", mlp=0.5, importance="surgeon", batch_size=2),
    "structured, activation": Step.of("structured-pruning", mlp=0.5, importance="activation", batch_size=2),
    "structured, hessian": Step.of("structured-pruning", mlp=0.5, importance="hessian", repair="none", batch_size=2),
    "depth": Step.of("depth-pruning", count=1, importance="similarity", batch_size=2),
    "depth, repair": Step.of("depth-pruning", blocks=[1], repair="mean", batch_size=2),
    "width": Step.of("width-pruning", ratio=0.5, importance="activation", batch_size=2),
    "width, repair": Step.of("width-pruning", ratio=0.5, importance="l1", repair="mean", batch_size=2),
    "sparsegpt, taylor": Step.of("sparsegpt", batch_size=2),
    "sparsegpt, uniform": Step.of("sparsegpt", allocation="uniform", batch_size=2),
    "semi-structured, sparsegpt": Step.of("semi-structured", batch_size=2),
    "semi-structured, wanda": Step.of("semi-structured", method="wanda", batch_size=2),
    "wanda": Step.of("wanda", batch_size=2),
    "taylor": Step.of("unstructured-pruning", importance="taylor", batch_size=2),
    "obd": Step.of("unstructured-pruning", importance="obd", batch_size=2),
}


class Raw:
    """A Split that nobody checked."""

    name = "raw images"
    class_names = ("a", "b")
    fingerprint = "raw"

    def __init__(self, pixels: torch.Tensor) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        for part in self.pixels.split(batch_size):
            yield Batch(part, torch.zeros(len(part), dtype=torch.long))

    def subset(self, indices: Sequence[int]) -> Raw:
        return Raw(self.pixels[list(indices)])

    def resized(self, height: int, width: int) -> Raw:
        return self


def spoilt(kind: str) -> Raw | None:
    pixels = torch.randn(10, 3, 24 if kind == "shape" else 32, 32, generator=torch.Generator().manual_seed(0))
    if kind == "nan":
        pixels[9, 0, 0, 0] = torch.nan
    counts = {"empty": 0, "one": 1, "seven": 7}
    return None if kind == "missing" else Raw(pixels[: counts.get(kind, 10)])


MESSAGES = {
    "nan": "hold NaN or infinity",
    "shape": "the model takes",
    "missing": "at least 8 calibration images and has 0",
    "empty": "at least 8 calibration images and has 0",
    "one": "at least 8 calibration images and has 1",
    "seven": "at least 8 calibration images and has 7",
}


@pytest.mark.parametrize("label", STEPS)
@pytest.mark.parametrize("kind", MESSAGES)
def test_what_cannot_be_used_is_named_and_nothing_is_changed(kind: str, label: str) -> None:
    step, calibration = STEPS[label], spoilt(kind)
    optimizer = default_registry().optimizers[step.use].optimizer
    model = tiny_vit(mlp=64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    context = Context(find_adapter(model, default_registry().adapters), Environment(), calibration=calibration)
    with pytest.raises(DataError, match=MESSAGES[kind]):
        optimizer.apply(model, optimizer.config_type(**step.parameters), context)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


LIMITED = [label for label, step in STEPS.items() if step.use in ("sparsegpt", "semi-structured", "wanda")]


@pytest.mark.parametrize("label", LIMITED)
def test_looking_at_too_few_images_is_refused_with_the_recipe(label: str) -> None:
    few = Step.of(STEPS[label].use, **{**STEPS[label].parameters, "images": 4})
    with pytest.raises(RecipeError, match="images: got 4; allowed: whole number >= 8"):
        validate(Recipe(steps=(few,)), default_registry(), environment=Environment())
