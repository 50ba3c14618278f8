"""CLIP as a family: its layout, true attributes, and strategies that never heard of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pah_opt_clip.calibration import ExpectedCalibrationError, calibration_error
from transformers import CLIPConfig, CLIPForImageClassification

import pah_opt
from pah_opt import Recipe, Step
from pah_opt.errors import RecipeError
from pah_opt.measure.settings import MeasureSettings
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.testing import tiny_data, tiny_images, tiny_timm_vit


@pytest.fixture
def model() -> Any:
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    torch.manual_seed(0)
    made = CLIPForImageClassification(CLIPConfig(vision_config=vision, num_labels=10, projection_dim=16))
    torch.nn.init.normal_(made.classifier.weight)
    return made.eval()


def run(model: Any, *steps: Step) -> Any:
    return pah_opt.apply(model, Recipe(steps=steps), tiny_data(), on_collapse="ignore")


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(tiny_images(3)).logits


def test_the_layout_is_read_from_the_tensors(model: Any) -> None:
    adapter = find_adapter(model, default_registry().adapters)
    layout = adapter.layout(model)
    assert adapter.name == "clip-vision"
    assert (layout.hidden_size, layout.image_size, layout.patch_size) == (32, (32, 32), (8, 8))
    assert (layout.num_classes, layout.prefix_tokens, len(layout.blocks)) == (10, 1, 2)
    assert (layout.blocks[0].attention.num_heads, layout.blocks[0].mlp.width) == (4, 64)
    assert adapter.disagreements(model) == []


def test_a_stale_attribute_is_named_and_put_right(model: Any) -> None:
    adapter = find_adapter(model, default_registry().adapters)
    model.config.vision_config.intermediate_size = 100
    assert adapter.disagreements(model) == ["config.vision_config.intermediate_size is 100, the tensors say 64"]
    adapter.sync(model)
    assert adapter.disagreements(model) == []


CHAINS = {
    "heads and units": (Step.of("structured-pruning", heads=0.5, mlp=0.5),),
    "three of four heads": (Step.of("structured-pruning", heads=0.25, mlp=0.5),),
    "zeros": (Step.of("magnitude-pruning", sparsity=0.5),),
    "int8": (Step.of("torchao", scheme="int8-dynamic"),),
    "fewer blocks, fused, half": (Step.of("depth-pruning", count=1), Step.of("fused-qkv"), Step.of("cast")),
    "pruned and int8": (Step.of("structured-pruning", heads=0.5, mlp=0.5), Step.of("torchao", scheme="int8-dynamic")),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_built_in_strategies_work_and_the_result_comes_back_from_disk(chain: str, model: Any, tmp_path: Path) -> None:
    artifact = run(model, *CHAINS[chain])
    assert find_adapter(artifact.model, default_registry().adapters).disagreements(artifact.model) == []
    artifact.save(tmp_path / "artifact")
    again = pah_opt.load(tmp_path / "artifact", verify=True).model
    assert torch.equal(logits(again), logits(artifact.model))


def test_a_plan_needs_no_weights(model: Any) -> None:
    planned = pah_opt.plan(model.to("meta"), Recipe(steps=CHAINS["heads and units"]))
    assert planned.steps[0].figures.params < planned.before.params
    assert planned.steps[0].figures.macs < planned.before.macs


def test_another_input_size_is_refused_by_name(model: Any) -> None:
    with pytest.raises(RecipeError, match="leave the input-size step out"):
        run(model, Step.of("input-size", size=16))


def test_tokens_of_clip_merge_too(model: Any) -> None:
    pytest.importorskip("pah_opt_tome", reason="pah-opt-tome is not installed")
    artifact = run(model, Step.of("tome", keep=0.5))
    assert artifact.steps[0].after["macs"] < artifact.steps[0].before["macs"]


def test_the_calibration_error_is_the_papers() -> None:
    confidence = torch.tensor([0.8, 0.8, 0.8, 0.8, 0.5, 0.5])
    correct = torch.tensor([True, True, True, False, False, False])
    assert calibration_error(confidence, correct) == pytest.approx((4 * 0.05 + 2 * 0.5) / 6)
    assert calibration_error(torch.ones(3), torch.ones(3, dtype=torch.bool)) == 0.0


def test_every_report_has_the_calibration_error(model: Any) -> None:
    data = tiny_data()
    found = ExpectedCalibrationError().measure(model, None, data.test)
    assert found.value is not None
    assert 0 < found.value <= 100
    assert ExpectedCalibrationError().measure(model, None, None).reason == "there are no test images"
    assert "ece_pct" in default_registry().metrics


@pytest.mark.parametrize("steps", [[Step.of("input-size", size=16)], [Step.of("cast")]])
def test_calibration_is_measured_at_each_models_own_size_and_in_its_own_type(steps: list[Step]) -> None:
    made = pah_opt.apply(tiny_timm_vit(), Recipe(steps=steps), on_collapse="ignore")
    report = pah_opt.compare(
        {"dense": tiny_timm_vit(), "made": made}, tiny_data(), settings=MeasureSettings.quick(groups={"extra"})
    )
    found = [model.extra["ece_pct"] for model in report.models]
    assert [each.reason for each in found] == [None, None]
