from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import ViTImageProcessorPil

import pah_opt
from pah_opt.data import ImageSplit, TensorSplit
from pah_opt.errors import DataError, RecipeError
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.splits import Data
from pah_opt.testing import TINY_MODELS, tiny_dinov2, tiny_images, tiny_vit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from conftest import Apply


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_every_family_takes_smaller_images_and_computes_less(
    name: str, apply: Apply, reloaded: Callable[[Any], nn.Module], logits: Callable[..., Any]
) -> None:
    model = TINY_MODELS[name]()
    artifact = apply(model, "input-size", size=16)
    (step,) = artifact.steps
    assert step.achieved["image_size"] == {"before": [32, 32], "after": [16, 16]}
    assert step.achieved["tokens"]["before"] - step.achieved["tokens"]["after"] == 16 - 4
    assert step.after["macs"] < 0.5 * step.before["macs"]
    assert find_adapter(model, pah_opt_model_adapters()).layout(model).image_size == (32, 32)
    assert torch.equal(logits(reloaded(artifact), 16), logits(artifact.model, 16))


def test_the_logits_are_those_of_interpolating_at_run_time(apply: Apply) -> None:
    model = tiny_vit()
    artifact = apply(model, "input-size", size=24)
    wanted = model(tiny_images(image=24), interpolate_pos_encoding=True).logits
    torch.testing.assert_close(artifact.model(tiny_images(image=24)).logits, wanted)


def test_larger_and_oblong_sizes_work_where_the_model_takes_them(apply: Apply) -> None:
    artifact = apply(tiny_vit(), "input-size", size=[16, 64])
    assert artifact.model(torch.zeros(1, 3, 16, 64)).logits.shape == (1, 10)
    assert artifact.model.config.image_size == [16, 64]


def processor_of(artifact: pah_opt.Artifact, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((artifact.save(folder) / "preprocessor_config.json").read_text())
    assert found == artifact.processor
    return found


def test_the_saved_processor_makes_images_of_the_new_size(tmp_path: Path) -> None:
    cropping = ViTImageProcessorPil(
        size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}, do_center_crop=True
    )
    images = [np.zeros((40, 40, 3), dtype=np.uint8)] * 20
    split = ImageSplit(images, torch.arange(20) % 10, [str(label) for label in range(10)], cropping)
    recipe = pah_opt.Recipe(steps=(pah_opt.Step.of("input-size", size=16),))
    saved = processor_of(pah_opt.apply(tiny_vit(), recipe, Data(test=split)), tmp_path / "cropped")
    assert (saved["crop_size"], saved["size"]) == ({"height": 16, "width": 16}, {"shortest_edge": 18})


def test_a_processor_can_be_given_where_there_are_no_images_that_carry_it(tmp_path: Path) -> None:
    plain = ViTImageProcessorPil(size={"height": 32, "width": 32})
    recipe = pah_opt.Recipe(steps=(pah_opt.Step.of("input-size", size=16),))
    saved = processor_of(pah_opt.apply(tiny_vit(), recipe, processor=plain), tmp_path / "plain")
    assert saved["size"] == {"height": 16, "width": 16}
    with pytest.raises(DataError, match="depends on the image"):
        pah_opt.apply(tiny_vit(), recipe, processor=ViTImageProcessorPil(size={"shortest_edge": 32}))


def test_steps_after_it_see_images_of_the_new_size(apply: Apply) -> None:
    pixels = torch.randn(24, 3, 16, 16)
    split = TensorSplit(pixels, torch.arange(24) % 10, [str(label) for label in range(10)])

    class Both:
        """The same images at two sizes, as a split with a processor has them."""

        name, class_names, fingerprint = split.name, split.class_names, split.fingerprint

        def __len__(self) -> int:
            return len(split)

        def subset(self, indices: Any) -> Any:
            return self

        def resized(self, height: int, width: int) -> Any:
            grown = torch.nn.functional.interpolate(pixels, size=(height, width))
            return TensorSplit(grown, torch.arange(24) % 10, [str(label) for label in range(10)])

        def batches(self, batch_size: int, *, shuffle_seed: int | None = None) -> Any:
            return self.resized(32, 32).batches(batch_size, shuffle_seed=shuffle_seed)

    recipe = pah_opt.Recipe(steps=(pah_opt.Step.of("input-size", size=16), pah_opt.Step.of("wanda", sparsity=0.5)))
    artifact = pah_opt.apply(tiny_vit(), recipe, data=pah_opt.Data(test=Both(), train=Both()), on_collapse="ignore")
    assert artifact.steps[1].achieved["sparsity"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [(tiny_vit(), 30, "height 30 is not a multiple of the model's patch of 8 pixels; the nearest is 32"),
     (tiny_vit(), [32, 12], "width 12 is not a multiple"), (tiny_vit(), 32, "takes 32x32 pixels already"),
     (tiny_dinov2(), [16, 32], "hf-dinov2 models take square images only, not 16x32"),
     (tiny_vit(), 0, "with.size: got 0; allowed: whole number > 0"), (tiny_vit(), "big", "size"),
     (tiny_vit(), 100_000, "16384")],
)  # fmt: skip
def test_a_size_that_does_not_fit_is_refused_before_anything_changes(
    model: nn.Module, size: Any, message: str, apply: Apply
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RecipeError, match=message):
        apply(model, "input-size", size=size)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_plan_predicts_the_fewer_tokens_and_macs() -> None:
    recipe = pah_opt.Recipe(steps=(pah_opt.Step.of("input-size", size=16),))
    with torch.device("meta"):
        planned = pah_opt.plan(tiny_vit(), recipe)
    (step,) = planned.steps
    assert step.figures.macs < 0.5 * planned.before.macs
    assert step.notes["tokens"] == {"before": 17, "after": 5}
