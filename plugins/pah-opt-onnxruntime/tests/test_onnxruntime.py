"""ONNX Runtime as a step: the contract, agreement with torch, what is quantized, and what is refused."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import onnx
import pytest
import torch
from pah_opt_onnxruntime import quantizing

import pah_opt
from pah_opt.errors import RecipeError, UnsupportedModelError
from pah_opt.models.engine import kept_graph
from pah_opt.testing import PARTNERS, OptimizerContract, tiny_data, tiny_images, tiny_timm_vit, tiny_vit


class Narrow(OptimizerContract):
    """Exporting takes seconds: a few layouts and partners stand for the others, in both orders."""

    __test__ = False
    compatible_layouts = ("hf-vit", "timm-vit")
    partners: ClassVar = {name: PARTNERS[name] for name in ("structured-pruning", "bitsandbytes")}

    # Not a test here: the layouts that are left out are not refused, exporting them takes long.
    test_refuses_the_other_layouts = None


class TestOnnxRuntime(Narrow):
    __test__ = True
    optimizer = "onnxruntime"
    parameters: ClassVar = {"threads": 1}


class TestOnnxRuntimeInt8(Narrow):
    __test__ = True
    optimizer = "onnxruntime-int8"
    parameters: ClassVar = {"threads": 1, "images": 8}
    compatible_layouts = ("hf-vit",)
    partners: ClassVar = {"bitsandbytes": PARTNERS["bitsandbytes"]}


def made(model: Any, *steps: pah_opt.Step) -> Any:
    return pah_opt.apply(model, pah_opt.Recipe(steps=steps), tiny_data(), on_collapse="ignore")


def test_the_engine_answers_what_torch_answers_and_in_the_same_form() -> None:
    model, images = tiny_vit(), tiny_images(5)
    artifact = made(model, pah_opt.Step.of("onnxruntime"))
    with torch.inference_mode():
        wanted = model(images).logits
    found = artifact.model(pixel_values=images).logits
    assert torch.allclose(found, wanted, atol=1e-4)
    with torch.inference_mode():
        assert torch.equal(copy.deepcopy(artifact.model)(images).logits, wanted)
    assert isinstance(made(tiny_timm_vit(), pah_opt.Step.of("onnxruntime")).model(images), torch.Tensor)


def test_what_the_graph_does_not_have_is_refused_by_name() -> None:
    artifact = made(tiny_vit(), pah_opt.Step.of("onnxruntime"))
    with pytest.raises(UnsupportedModelError, match="output_attentions"):
        artifact.model(tiny_images(1), output_attentions=True)


def test_int8_quantizes_every_linear_layer_of_the_blocks_and_not_the_classifier() -> None:
    artifact = made(tiny_vit(), pah_opt.Step.of("onnxruntime-int8", images=16))
    assert artifact.steps[0].achieved["quantized_layers"] == 2 * 6
    graph = onnx.load_from_string(kept_graph(artifact.model)).graph
    int8 = [
        tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2
    ]
    assert len(int8) == 12
    assert not any(10 in tensor.dims for tensor in int8)
    images = tiny_images(20)
    with torch.inference_mode():
        wanted = copy.deepcopy(artifact.model)(images).logits
    change = (artifact.model(images).logits - wanted).abs().max() / wanted.abs().max()
    assert 0 < float(change) < 0.1


def test_integers_of_torchao_stay_integers_in_the_engine() -> None:
    steps = (pah_opt.Step.of("torchao", scheme="int8-dynamic"), pah_opt.Step.of("onnxruntime"))
    artifact = made(tiny_vit(hidden=64, mlp=128), *steps)
    float_bytes = made(tiny_vit(hidden=64, mlp=128), pah_opt.Step.of("onnxruntime")).steps[0].achieved["graph_bytes"]
    assert artifact.steps[1].achieved["graph_bytes"] < 0.6 * float_bytes


def test_weights_without_a_form_in_onnx_are_refused_when_planned() -> None:
    steps = (pah_opt.Step.of("bitsandbytes", scheme="nf4"), pah_opt.Step.of("onnxruntime"))
    with pytest.raises(RecipeError, match="bitsandbytes computes nf4"):
        made(tiny_vit(hidden=64), *steps)


def test_nothing_follows_an_engine() -> None:
    steps = (pah_opt.Step.of("onnxruntime"), pah_opt.Step.of("magnitude-pruning", sparsity=0.5))
    with pytest.raises(RecipeError, match="this order works: magnitude-pruning, onnxruntime"):
        made(tiny_vit(), *steps)


@pytest.mark.parametrize("partner", PARTNERS)
@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime-int8"])
def test_every_other_order_is_refused_when_planned(engine: str, partner: str) -> None:
    steps = (pah_opt.Step.of(engine), pah_opt.Step.of(partner, **PARTNERS[partner]))
    with pytest.raises(RecipeError, match=partner):
        pah_opt.plan(tiny_vit(), pah_opt.Recipe(steps=steps))


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "entropy"])
def test_the_last_batch_may_be_smaller(calibration: str) -> None:
    step = pah_opt.Step.of("onnxruntime-int8", calibration=calibration, images=10, batch_size=4)
    assert made(tiny_vit(), step).steps[0].achieved["quantized_layers"] == 12


def test_calibration_pixels_are_float32_on_the_cpu_whatever_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, real = [], quantizing.calibration_batches

    def watched(split: Any, layout: Any, size: int, like: torch.Tensor) -> Any:
        seen.append((like.device.type, like.dtype))
        return real(split, layout, size, like)

    monkeypatch.setattr(quantizing, "calibration_batches", watched)
    made(tiny_vit().to(torch.bfloat16), pah_opt.Step.of("onnxruntime-int8", images=8))
    assert seen == [("cpu", torch.float32)]
