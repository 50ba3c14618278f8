from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import pah_opt
from pah_opt.models import model_problems, state_tags
from pah_opt.models.state import _subclass_type
from pah_opt.optimizer import FRESH_TAGS
from pah_opt.testing import TINY_MODELS, tiny_vit

if TYPE_CHECKING:
    from conftest import Case


def test_a_fresh_model_has_fresh_tags_and_no_problems(any_case: Case) -> None:
    assert state_tags(any_case.model) == FRESH_TAGS
    assert model_problems(any_case.model) == []


@pytest.mark.parametrize(("dtype", "tag"), [(torch.bfloat16, "dtype:bf16"), (torch.float16, "dtype:fp16")])
def test_half_precision_is_a_tag_and_still_float(dtype: torch.dtype, tag: str) -> None:
    assert state_tags(tiny_vit().to(dtype)) == FRESH_TAGS | {tag}


def test_zeros_on_purpose_are_a_tag() -> None:
    model = tiny_vit()
    with torch.no_grad():
        model.vit.layers[0].mlp.fc1.weight[:, ::2] = 0
    assert state_tags(model) == FRESH_TAGS | {"weights:sparse"}
    assert state_tags(model.to("meta")) == FRESH_TAGS


def test_torchao_weights_are_quantized_and_their_shapes_no_longer_free() -> None:
    torchao = pytest.importorskip("torchao.quantization")
    model = tiny_vit()
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    assert state_tags(model) == {"graph:eager", "linear:int8"}


@pytest.mark.parametrize(("scheme", "tag"), [("int8-dynamic", "int8"), ("int4-weight-only", "int4"),
                                             ("fp8-weight-only", "fp8")])  # fmt: skip
def test_tags_of_a_quantized_model_are_those_the_step_declared(scheme: str, tag: str) -> None:
    artifact = pah_opt.apply(
        tiny_vit(hidden=64, mlp=128), pah_opt.Recipe(steps=(pah_opt.Step.of("torchao", scheme=scheme),))
    )
    assert f"linear:{tag}" in artifact.tags
    assert state_tags(artifact.model) == artifact.tags


@pytest.mark.parametrize("kind", ["int8", "nf4", "fp4"])
def test_bitsandbytes_layers_are_recognised(kind: str) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    model = tiny_vit()
    layer = (
        bnb.nn.Linear8bitLt(32, 64, has_fp16_weights=False)
        if kind == "int8"
        else bnb.nn.Linear4bit(32, 64, quant_type=kind)
    )
    model.vit.layers[0].mlp.fc1 = layer
    assert state_tags(model) == {"graph:eager", f"linear:{kind}"}


def test_subclasses_are_named_by_what_they_declare_or_are_called_or_hold() -> None:
    class Inner:
        dtype = torch.uint8

    def weight(name: str, **declared: object) -> object:
        flatten = {"__tensor_flatten__": lambda self: (["codes"], None), "codes": Inner()}
        return type(name, (), {**flatten, **declared})()

    assert _subclass_type(weight("SparseSemiStructuredTensor")) == "2:4"
    assert _subclass_type(weight("IntxUnpackedToInt8Tensor", target_dtype=torch.int4)) == "int4"
    assert _subclass_type(weight("Opaque", bit_width=3)) == "int3"
    assert _subclass_type(weight("NF4Tensor")) == "nf4"
    assert _subclass_type(weight("Mystery")) == "packed"


def test_torch_dynamic_quantization_is_recognised() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao.quantization is deprecated; models made with it still exist
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    assert "linear:int8" in state_tags(quantized)


def test_compiled_models_are_recognised_however_they_were_compiled() -> None:
    wrapped, in_place, part = torch.compile(tiny_vit()), tiny_vit(), tiny_vit()
    in_place.compile()
    part.vit.layers[0].compile()
    for model in (wrapped, in_place, part):
        assert {"compiled"} <= state_tags(model)
        assert "graph:eager" not in state_tags(model)
        assert any("it is compiled" in problem and "_orig_mod" in problem for problem in model_problems(model))


@pytest.mark.parametrize("thing", [None, "google/vit-base-patch16-224", {"weight": 1}])
def test_what_is_no_module_is_a_problem_that_names_its_type(thing: object) -> None:
    assert f"it is a {type(thing).__name__}, not a torch.nn.Module" in model_problems(thing)[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    model = tiny_vit()
    with torch.no_grad():
        model.vit.layers[1].mlp.fc2.weight[3, 4] = value
        model.classifier.bias[0] = value
    (problem,) = model_problems(model)
    assert problem.startswith("2 parameters hold NaN or infinity (vit.layers.1.mlp.fc2.weight, classifier.bias); ")
    assert "reload the weights" in problem


def test_large_finite_weights_are_no_problem() -> None:
    model = tiny_vit().half()
    with torch.no_grad():
        model.classifier.weight.fill_(60000.0)
    assert model_problems(model) == []


def test_masks_that_were_not_folded_are_named() -> None:
    model = tiny_vit()
    prune.l1_unstructured(model.vit.layers[0].mlp.fc1, "weight", 0.5)
    assert "1 modules still carry pruning masks" in model_problems(model)[0]
    assert "vit.layers.0.mlp.fc1" in model_problems(model)[0]
    prune.remove(model.vit.layers[0].mlp.fc1, "weight")
    assert model_problems(model) == []


def test_a_mask_token_is_no_pruning_mask() -> None:
    assert model_problems(TINY_MODELS["hf-dinov2"](use_mask_token=True)) == []


def test_half_of_a_model_on_meta_is_a_problem_and_a_whole_one_is_not() -> None:
    model = tiny_vit()
    model.vit.layers[1].to("meta")
    assert "part of it has no values yet" in model_problems(model)[0]
    assert "16 on meta (vit.layers.1" in model_problems(model)[0]
    assert model_problems(model.to("meta")) == []


def test_parameters_on_several_devices_are_a_problem() -> None:
    class Elsewhere(nn.Module):
        """A stand-in for a module on another device, where there is none."""

        def named_parameters(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            here = torch.zeros(1)
            there = type("Fake", (), {"device": "cuda:0", "is_floating_point": lambda _: False})()
            return iter([("a", here), ("b", there)])

    assert any(
        "parameters are on several devices: 1 on cpu (a); 1 on cuda:0 (b)" in p for p in model_problems(Elsewhere())
    )


def test_tied_parameters_are_a_problem_with_both_names() -> None:
    model = tiny_vit()
    first, second = model.vit.layers[0].mlp, model.vit.layers[1].mlp
    second.fc1.weight = first.fc1.weight
    (problem,) = model_problems(model)
    assert "vit.layers.0.mlp.fc1.weight is also vit.layers.1.mlp.fc1.weight" in problem
    assert "clone()" in problem
    second.fc1.weight = nn.Parameter(first.fc1.weight.detach().clone())
    assert model_problems(model) == []


def test_a_network_that_two_blocks_share_is_a_problem() -> None:
    model = tiny_vit()
    model.vit.layers[1].mlp = model.vit.layers[0].mlp
    (problem,) = model_problems(model)
    assert "4 parameters are tied" in problem
    assert "copy.deepcopy" in problem
