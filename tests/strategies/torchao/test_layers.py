"""Which layer gets which scheme, what is refused, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import pah_opt
from pah_opt.environment import Environment
from pah_opt.errors import IncompatibleStepsError, RecipeError, UnsupportedModelError
from pah_opt.optimizer import Context
from pah_opt.strategies.torchao import Torchao, TorchaoConfig
from pah_opt.strategies.torchao.layers import assign
from pah_opt.testing import tiny_vit


def problems(model: nn.Module, adapter: Any, **parameters: Any) -> list[str]:
    return Torchao().check(model, TorchaoConfig(**parameters), Context(adapter, Environment()))


def recipe(*steps: dict[str, Any]) -> pah_opt.Recipe:
    return pah_opt.Recipe(steps=[pah_opt.Step.of("torchao", **step) for step in steps])


def test_include_and_skip_choose_layers(run: Callable[..., Any], vit: nn.Module) -> None:
    achieved = run(vit, include=("mlp",), skip=("*.0.*",)).achieved
    assert set(achieved["quantized"]) == {"vit.layers.1.mlp.fc1", "vit.layers.1.mlp.fc2"}
    assert set(achieved["left_in_float"]) == {
        path for path, m in vit.named_modules() if isinstance(m, nn.Linear)
    } - set(achieved["quantized"])  # fmt: skip


def test_last_matching_pattern_of_per_layer_decides(adapter: Callable[..., Any], vit: nn.Module) -> None:
    config = TorchaoConfig(
        scheme="int8-dynamic", per_layer={"mlp": "int4-weight-only", "*.0.mlp.*": "int8-weight-only", "qkv": "float"}
    )
    found = assign(vit, adapter(vit).layout(vit), config)
    assert found.schemes["vit.layers.1.mlp.fc1"] == "int4-weight-only"
    assert found.schemes["vit.layers.0.mlp.fc1"] == "int8-weight-only"
    assert found.schemes["vit.layers.0.attention.o_proj"] == "int8-dynamic"
    assert found.left["vit.layers.0.attention.q_proj"] == "left out by per_layer"


def test_mixed_precision_stores_each_layer_as_asked(run: Callable[..., Any], vit: nn.Module) -> None:
    ran = run(vit, scheme="fp8-weight-only", per_layer={"attention": "int8-dynamic", "*.1.mlp.*": "int4-weight-only"})
    kinds = {path: type(ran.model.get_parameter(f"{path}.weight")).__name__ for path in ran.achieved["quantized"]}
    assert kinds["vit.layers.0.mlp.fc1"] == "Float8Tensor"
    assert kinds["vit.layers.0.attention.q_proj"] == "Int8Tensor"
    assert kinds["vit.layers.1.mlp.fc2"] == "PackedInt4Tensor"


def test_layers_whose_widths_suit_no_kernel_stay_in_float_and_are_named(run: Callable[..., Any]) -> None:
    achieved = run(tiny_vit(hidden=64, mlp=100), scheme="int8-dynamic").achieved
    assert "100 and 64 are not both multiples of 8" in achieved["left_in_float"]["vit.layers.0.mlp.fc2"]
    assert set(achieved["quantized"]) == {p for p in achieved["quantized"] if "attention" in p} != set()


def test_weight_only_int8_takes_any_width(run: Callable[..., Any]) -> None:
    assert "vit.layers.0.mlp.fc2" in run(tiny_vit(mlp=100), scheme="int8-weight-only").achieved["quantized"]


def test_int4_leaves_layers_that_the_group_does_not_divide(run: Callable[..., Any]) -> None:
    achieved = run(tiny_vit(hidden=64, mlp=80), scheme="int4-weight-only", group_size=32).achieved
    assert "80 inputs are no multiple of group_size 32" in achieved["left_in_float"]["vit.layers.1.mlp.fc2"]


@pytest.mark.parametrize(
    ("parameters", "field", "hint"),
    [
        ({"include": ("mpl",)}, "with.include: 'mpl' matches no linear layer", "did you mean 'mlp'"),
        ({"skip": ("classifier", "vit.layers.9.*")}, "with.skip: 'vit.layers.9.*'", "attention-output"),
        ({"per_layer": {"fc3": "float"}}, "with.per_layer: 'fc3'", "glob patterns"),
    ],
)
def test_pattern_that_matches_nothing_is_refused_with_what_would(
    adapter: Callable[..., Any], vit: nn.Module, parameters: dict[str, Any], field: str, hint: str
) -> None:
    (found,) = problems(vit, adapter(vit), **parameters)
    assert field in found
    assert hint in found


@pytest.mark.parametrize(
    "parameters", [{"include": ("classifier",)}, {"per_layer": {"*": "float"}}, {"skip": ("*",)}], ids=str
)
def test_a_step_that_would_quantize_nothing_is_refused(
    adapter: Callable[..., Any], vit: nn.Module, parameters: dict[str, Any]
) -> None:
    (found,) = problems(vit, adapter(vit), **parameters)
    assert found.startswith("no linear layer is left to quantize: left out by")


def test_a_model_of_unsuitable_widths_is_refused_with_the_reason(adapter: Callable[..., Any]) -> None:
    model = tiny_vit(hidden=36, mlp=52, heads=2)
    (found,) = problems(model, adapter(model))
    assert "not both multiples of 8" in found


def test_fp8_dynamic_wants_bfloat16_and_says_how_to_get_it(adapter: Callable[..., Any], vit: nn.Module) -> None:
    (found,) = problems(vit, adapter(vit), scheme="fp8-dynamic")
    assert "is float32" in found
    assert "cast step" in found
    assert problems(vit.to(torch.bfloat16), adapter(vit), scheme="fp8-dynamic") == []


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (Environment(cuda=False), "needs a CUDA device, and there is none"),
        (Environment(cuda=True, capability=(8, 0)), "8.9 or newer, this one is of capability 8.0"),
    ],
)
def test_fp8_dynamic_is_refused_on_old_hardware_with_what_to_use_instead(
    vit: nn.Module, environment: Environment, message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as raised:
        pah_opt.plan(vit.to(torch.bfloat16), recipe({"scheme": "fp8-dynamic"}), environment=environment)
    assert "fp8-weight-only" in str(raised.value)


def test_fp8_dynamic_can_be_planned_for_a_newer_machine(vit: nn.Module) -> None:
    plan = pah_opt.plan(
        vit.to(torch.bfloat16),
        recipe({"scheme": "fp8-dynamic"}),
        environment=Environment(cuda=True, capability=(9, 0)),
    )
    assert plan.steps[0].figures.linear_dtypes["fp8"] == 12


def test_second_quantization_in_a_recipe_is_refused_before_anything_runs(vit: nn.Module) -> None:
    with pytest.raises(IncompatibleStepsError, match=r"weights:float.*step 1 \(torchao\) removed"):
        pah_opt.apply(vit, recipe({}, {"scheme": "int4-weight-only"}))


def test_second_quantization_of_a_model_is_refused(run: Callable[..., Any], vit: nn.Module) -> None:
    quantized = run(vit).model
    with pytest.raises(IncompatibleStepsError, match="weights:float"):
        pah_opt.apply(quantized, recipe({"scheme": "int8-weight-only"}))


def test_second_quantization_without_a_pipeline_is_refused_before_any_change(
    run: Callable[..., Any], adapter: Callable[..., Any], vit: nn.Module, pixels: torch.Tensor
) -> None:
    ran = run(vit)
    before = ran.logits(pixels)
    with pytest.raises(UnsupportedModelError, match="quantized already"):
        Torchao().apply(ran.model, TorchaoConfig(), Context(adapter(vit), Environment()))
    assert torch.equal(ran.logits(pixels), before)


def test_compiled_model_is_refused(vit: nn.Module) -> None:
    with pytest.raises(UnsupportedModelError, match="compiled"):
        pah_opt.apply(torch.compile(vit), recipe({}))


def test_pruning_after_quantization_is_refused_with_the_order_that_works(vit: nn.Module) -> None:
    steps = [pah_opt.Step.of("torchao"), pah_opt.Step.of("magnitude-pruning", sparsity=0.5)]
    with pytest.raises(IncompatibleStepsError, match="magnitude-pruning, torchao"):
        pah_opt.plan(vit, pah_opt.Recipe(steps=steps))


def test_refusals_leave_the_model_untouched(vit: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    for step in ({"include": ["nothing"]}, {"scheme": "int8-static"}, {"scheme": "int8-qat"}):
        with pytest.raises(pah_opt.errors.PahOptError):
            pah_opt.apply(vit, recipe(step))
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit.state_dict().items())
