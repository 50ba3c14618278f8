from __future__ import annotations

import copy
import shutil
import warnings
from inspect import signature
from typing import TYPE_CHECKING, Any

import pytest
import torch

import pah_opt
from pah_opt.environment import Environment
from pah_opt.errors import IncompatibleStepsError, RecipeError, UnsupportedModelError
from pah_opt.strategies.runtime.agreement import check_agreement, example_logits, example_pixels, wobble
from pah_opt.strategies.runtime.compile import COMPILERS, Compile, CompileConfig, compiler_problems
from pah_opt.strategies.runtime.compiled import (
    CompileFallbackWarning,
    compile_lazily,
    guarded_call,
    is_compiler_error,
    reason_of,
)
from pah_opt.testing import TINY_MODELS, tiny_images, tiny_vit

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from conftest import Apply

HAS_COMPILER = any(shutil.which(name) for name in COMPILERS)
CAPTURE_ONLY = {"backend": "eager"}
"""Dynamo captures and checks graphs, and nothing is built: the mechanics without minutes of C++."""


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


def failing(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("this graph cannot be built")


@pytest.fixture
def broken_backend() -> Any:
    torch._dynamo.register_backend(failing, name="broken")
    yield "broken"
    torch._dynamo.backends.registry._BACKENDS.pop("broken")
    torch._dynamo.backends.registry._COMPILER_FNS.pop("broken", None)


QUICK = ("hf-vit", "timm-vit", "torchvision-vit")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(TINY_MODELS)]
)
def test_every_family_is_captured_whole_with_the_same_logits(
    name: str, apply: Apply, logits: Callable[..., Any], prepared: Callable[..., Any]
) -> None:
    artifact = apply(TINY_MODELS[name](), "compile", fullgraph=True, **CAPTURE_ONLY)
    achieved = artifact.steps[0].achieved
    assert achieved["compiled"]
    assert achieved["graphs"] == 1
    assert achieved["graph_breaks"] == {}
    assert achieved["logits_change"] < 1e-5
    torch.testing.assert_close(logits(artifact.model), logits(prepared(TINY_MODELS[name]())), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler: torch.compile cannot build code here")
def test_inductor_builds_a_model_that_keeps_its_type_and_logits_and_runs_after_loading(
    apply: Apply, reloaded: Callable[[Any], nn.Module], logits: Callable[..., Any]
) -> None:
    model = tiny_vit(blocks=1)
    artifact = apply(model, "compile")
    assert type(artifact.model) is type(model)
    assert artifact.steps[0].achieved["graphs"] >= 1
    again = reloaded(artifact)
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-4, atol=1e-5)
    assert guarded_call(again).failure is None


def test_a_compiled_model_keeps_its_type_names_and_state_and_its_copy_is_not_compiled(apply: Apply) -> None:
    model = tiny_vit()
    compiled = apply(model, "compile", **CAPTURE_ONLY).model
    assert type(compiled) is type(model)
    assert list(compiled.state_dict()) == list(model.state_dict())
    assert guarded_call(compiled).failure is None
    assert copy.deepcopy(compiled)._compiled_call_impl is None


def test_a_loaded_model_is_compiled_when_it_is_first_called(
    apply: Apply, reloaded: Callable[[Any], nn.Module], logits: Callable[..., Any]
) -> None:
    artifact = apply(tiny_vit(), "compile", dynamic=True, **CAPTURE_ONLY)
    again = reloaded(artifact)
    call = guarded_call(again)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert torch.equal(logits(again), logits(artifact.model))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    assert (call.on_failure, call.failure) == ("error", None)


@pytest.mark.parametrize(("dynamic", "graphs"), [(True, 1), (False, 3), (None, 2)])
def test_dynamic_decides_how_often_batch_sizes_are_compiled(dynamic: bool | None, graphs: int) -> None:
    model = compile_lazily(tiny_vit(), CompileConfig(dynamic=dynamic, **CAPTURE_ONLY))
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.inference_mode():
        for count in (2, 3, 5):
            model(tiny_images(count))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before == graphs


def test_failing_to_compile_is_an_error_that_names_the_reason_and_the_way_out(
    apply: Apply, broken_backend: str
) -> None:
    model = tiny_vit()
    with pytest.raises(UnsupportedModelError, match=r"this graph cannot be built.*set on_failure: eager") as caught:
        apply(model, "compile", backend=broken_backend)
    assert caught.value.__cause__ is not None
    assert model._compiled_call_impl is None


def test_failing_to_compile_falls_back_and_records_the_reason_where_that_is_asked_for(
    apply: Apply, broken_backend: str, reloaded: Callable[[Any], nn.Module], logits: Callable[..., Any]
) -> None:
    model = tiny_vit()
    artifact = apply(model, "compile", backend=broken_backend, on_failure="eager")
    achieved = artifact.steps[0].achieved
    assert achieved["compiled"] is False
    assert "this graph cannot be built" in achieved["reason"]
    assert artifact.model._compiled_call_impl is None
    assert torch.equal(logits(artifact.model), logits(model))
    assert reloaded(artifact)._compiled_call_impl is None


def test_failing_later_warns_once_and_goes_on_as_it_was(broken_backend: str) -> None:
    plain = tiny_vit()
    model = compile_lazily(copy.deepcopy(plain), CompileConfig(backend=broken_backend, on_failure="eager"))
    with torch.inference_mode():
        with pytest.warns(CompileFallbackWarning, match="cannot be compiled: .*cannot be built; it runs as it was"):
            first = model(tiny_images()).logits
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            second = model(tiny_images()).logits
        assert torch.equal(first, plain(tiny_images()).logits)
        assert torch.equal(first, second)


def test_a_wrong_input_is_not_mistaken_for_a_failure_to_compile() -> None:
    model = compile_lazily(tiny_vit(), CompileConfig(on_failure="eager", **CAPTURE_ONLY))
    with torch.inference_mode():
        with pytest.raises(ValueError, match="Input image size"):
            model(tiny_images(image=24))
        assert model(tiny_images()).logits.shape == (2, 10)
    assert guarded_call(model).failure is None


@pytest.mark.slow
def test_parts_that_cannot_be_captured_are_counted_or_refused(apply: Apply) -> None:
    def noisy() -> nn.Module:
        model = tiny_vit()
        block, forward = model.vit.layers[0].mlp, model.vit.layers[0].mlp.forward

        def with_break(hidden: Any) -> Any:
            torch._dynamo.graph_break()
            return forward(hidden)

        block.forward = with_break
        return model

    config, optimizer = CompileConfig(**CAPTURE_ONLY), Compile()
    context = context_for(noisy())
    optimizer.apply(noisy(), config, context)
    assert sum(context.achieved["graph_breaks"].values()) >= 1
    assert context.achieved["graphs"] >= 2
    torch._dynamo.reset()
    with pytest.raises(UnsupportedModelError, match="cannot be compiled"):
        optimizer.apply(noisy(), CompileConfig(fullgraph=True, **CAPTURE_ONLY), context)


def context_for(model: nn.Module) -> pah_opt.Context:
    from pah_opt.models import find_adapter
    from pah_opt.models.builtin import pah_opt_model_adapters

    return pah_opt.Context(find_adapter(model, pah_opt_model_adapters()), Environment())


def test_code_that_computes_something_else_is_refused(apply: Apply, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: Any, inputs: Any) -> Any:
        return lambda *args: [output * 1.5 for output in graph.forward(*args)]

    torch._dynamo.register_backend(wrong, name="wrong")
    with pytest.raises(UnsupportedModelError, match=r"compiling changed the logits by 0.5"):
        apply(tiny_vit(), "compile", backend="wrong")


def test_compiling_a_compiled_model_is_refused_before_anything_runs(apply: Apply) -> None:
    step = pah_opt.Step.of("compile", **CAPTURE_ONLY)
    with pytest.raises(IncompatibleStepsError, match="graph:eager"):
        apply(tiny_vit(), step, step)
    for compiled in (
        torch.compile(tiny_vit(), **CAPTURE_ONLY),
        compile_lazily(tiny_vit(), CompileConfig(**CAPTURE_ONLY)),
    ):
        with pytest.raises(UnsupportedModelError, match="it is compiled"):
            apply(compiled, step)
    with pytest.raises(UnsupportedModelError, match="compiled already; compile a model once"):
        compile_lazily(compile_lazily(tiny_vit(), CompileConfig(**CAPTURE_ONLY)), CompileConfig(**CAPTURE_ONLY))


@pytest.mark.parametrize("after", ["cast", "fused-qkv", "magnitude-pruning"])
def test_nothing_can_be_changed_after_compiling(after: str, apply: Apply) -> None:
    with pytest.raises(IncompatibleStepsError, match="graph:eager"):
        apply(tiny_vit(), pah_opt.Step.of("compile", **CAPTURE_ONLY), pah_opt.Step.of(after))


@pytest.mark.slow
def test_quantized_cast_and_pruned_models_can_be_compiled(apply: Apply) -> None:
    last = pah_opt.Step.of("compile", **CAPTURE_ONLY)
    for first in (
        pah_opt.Step.of("cast"),
        pah_opt.Step.of("torchao", scheme="int8-dynamic"),
        pah_opt.Step.of("magnitude-pruning", sparsity=0.5),
        pah_opt.Step.of("input-size", size=16),
        pah_opt.Step.of("fused-qkv"),
    ):
        assert apply(tiny_vit(), first, last).steps[1].achieved["compiled"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"backend": "nonsense"}, "backend is 'nonsense'; allowed here: .*inductor"),
        ({"mode": "fast"}, "max-autotune"),
        ({"dynamic": "x"}, "dynamic"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(parameters: dict[str, Any], message: str, apply: Apply) -> None:
    with pytest.raises(RecipeError, match=message):
        apply(tiny_vit(), "compile", **parameters)


def test_a_plan_compiles_nothing() -> None:
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.device("meta"):
        pah_opt.plan(tiny_vit(), pah_opt.Recipe(steps=(pah_opt.Step.of("compile"),)))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


def test_no_global_setting_of_the_compiler_changes(apply: Apply) -> None:
    import torch._inductor.config

    before = (torch._dynamo.config.get_config_copy(), torch._inductor.config.get_config_copy())
    apply(tiny_vit(), "compile", **CAPTURE_ONLY)
    assert (torch._dynamo.config.get_config_copy(), torch._inductor.config.get_config_copy()) == before


def test_a_machine_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    (problem,) = compiler_problems(CompileConfig())
    assert "no C++ compiler is installed" in problem
    assert "set CXX" in problem
    with pytest.raises(RecipeError, match="on_failure: eager to go on"):
        pah_opt.plan(tiny_vit(), pah_opt.Recipe(steps=(pah_opt.Step.of("compile"),)))
    monkeypatch.setenv("CXX", "/opt/bin/g++")
    assert compiler_problems(CompileConfig()) == []


@pytest.mark.parametrize("parameters", [{"on_failure": "eager"}, {"backend": "eager"}], ids=str)
def test_no_compiler_is_asked_for_where_the_step_can_do_without(
    monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any]
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    plan = pah_opt.plan(tiny_vit(), pah_opt.Recipe(steps=(pah_opt.Step.of("compile", **parameters),)))
    assert len(plan.steps) == 1


def test_compiler_errors_are_told_from_others() -> None:
    from torch._dynamo.exc import TorchDynamoException

    assert is_compiler_error(TorchDynamoException("no"))
    assert not is_compiler_error(RuntimeError("no"))
    assert not is_compiler_error(ValueError("no"))
    assert reason_of(RuntimeError("\n  first\nsecond")) == "first"
    assert reason_of(RuntimeError()) == "RuntimeError"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_model_on_a_gpu_is_compiled_in_each_mode(mode: str, apply: Apply) -> None:
    model = tiny_vit().cuda()
    artifact = apply(model, "compile", mode=mode)
    with torch.inference_mode():
        got = artifact.model(tiny_images().cuda()).logits.clone()
        torch.testing.assert_close(got, model(tiny_images().cuda()).logits, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(
    "isolate_recompiles" not in signature(torch.compile).parameters, reason="this torch counts for all models together"
)
def test_models_compiled_in_one_process_do_not_use_up_each_others_compilations(apply: Apply) -> None:
    limit = torch._dynamo.config.recompile_limit
    made = [apply(tiny_vit(hidden=16 * (1 + index)), "compile", **CAPTURE_ONLY) for index in range(limit + 2)]
    assert [artifact.steps[0].achieved["graphs"] > 0 for artifact in made] == [True] * (limit + 2)


def test_what_rounding_alone_does_to_logits_is_allowed_and_no_more() -> None:
    """Quantized activations next to a threshold fall to its other side: seen to change a ViT-S's logits by 0.16."""
    model, before = tiny_vit(), torch.ones(2, 3)
    assert check_agreement(before, before + 0.15, model, "compiling", 0.04) == pytest.approx(0.15)
    for after, wobbles in ((before + 0.15, 0.03), (before * float("nan"), float("inf"))):
        with pytest.raises(UnsupportedModelError, match="compiling changed the logits"):
            check_agreement(before, after, model, "compiling", wobbles)


def test_rounding_does_next_to_nothing_to_a_float_model_and_more_to_an_int8_one(apply: Apply) -> None:
    from pah_opt.environment import Environment
    from pah_opt.models import find_adapter
    from pah_opt.models.builtin import pah_opt_model_adapters
    from pah_opt.optimizer import Context

    found = []
    for model in (tiny_vit(), apply(tiny_vit(), "torchao", scheme="int8-dynamic").model):
        context = Context(find_adapter(model, pah_opt_model_adapters()), Environment())
        pixels = example_pixels(model, context)
        found.append(wobble(model, context, pixels, example_logits(model, context, pixels)))
    assert found[0] < 1e-5
    assert found[0] < found[1]
