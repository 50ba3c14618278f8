"""What every scheme promises, on every family of Vision Transformers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pah_opt
from pah_opt.measure.model import model_figures
from pah_opt.pipeline.copies import meta_copy
from pah_opt.testing import TINY_MODELS, tiny_images, tiny_vit

EVERYWHERE: dict[str, dict[str, Any]] = {
    "int8-weight-only": {},
    "int8-dynamic": {},
    "int8-static": {},
    "int4-weight-only": {"group_size": 16},
    "fp8-weight-only": {},
}
STORAGE = {"int8-weight-only": "int8", "int8-dynamic": "int8", "int8-static": "int8", "int8-qat": "int8",
           "int4-weight-only": "int4", "fp8-weight-only": "fp8"}  # fmt: skip
LARGEST_ERROR = {"int8-weight-only": 0.05, "int8-dynamic": 0.05, "int8-static": 0.06, "int4-weight-only": 0.25,
                 "fp8-weight-only": 0.12}  # fmt: skip


def figures(ran: Any) -> Any:
    return model_figures(ran.model, adapter=ran.adapter, example_shape=(1, 3, 32, 32))


@pytest.mark.parametrize("family", sorted(TINY_MODELS))
@pytest.mark.parametrize("scheme", sorted(EVERYWHERE))
def test_every_family_takes_every_scheme_and_stays_close(run: Callable[..., Any], family: str, scheme: str) -> None:
    dense = TINY_MODELS[family]()
    ran = run(dense, scheme=scheme, **EVERYWHERE[scheme])
    found = figures(ran)
    before = model_figures(ran.before, adapter=ran.adapter, example_shape=(1, 3, 32, 32))
    assert found.linear_dtypes[STORAGE[scheme]] == len(ran.achieved["quantized"]) > 0
    assert found.weights_bytes < before.weights_bytes
    assert (found.params, found.macs) == (before.params, before.macs)
    assert ran.error(tiny_images(4, seed=7)) < LARGEST_ERROR[scheme]


@pytest.mark.parametrize("scheme", sorted(EVERYWHERE))
def test_classifier_stays_in_float_and_the_report_says_so(run: Callable[..., Any], vit: nn.Module, scheme: str) -> None:
    ran = run(vit, scheme=scheme, **EVERYWHERE[scheme])
    assert type(ran.model.classifier.weight) is nn.Parameter
    assert "skip" in ran.achieved["left_in_float"]["classifier"]


@pytest.mark.parametrize("scheme", sorted(EVERYWHERE))
def test_classifier_can_be_quantized_too(run: Callable[..., Any], pixels: torch.Tensor, scheme: str) -> None:
    ran = run(tiny_vit(hidden=64, mlp=128, classes=16), scheme=scheme, skip=(), **EVERYWHERE[scheme])
    assert "classifier" in ran.achieved["quantized"]
    assert torch.isfinite(ran.logits(pixels)).all()


@pytest.mark.parametrize(
    "parameters",
    [
        *({"scheme": scheme, **options} for scheme, options in EVERYWHERE.items()),
        {"scheme": "int8-static", "naive": True},
        {"scheme": "int8-static", "smooth": None},
        {"scheme": "int8-qat", "training": {"steps": 1, "distill": 0}},
        {"per_layer": {"mlp": "int4-weight-only", "*.0.attention.*": "float"}},
    ],
    ids=str,
)
def test_planned_bytes_are_the_bytes_that_come(run: Callable[..., Any], parameters: dict[str, Any]) -> None:
    model = tiny_vit(hidden=64, mlp=128)
    real, planned = run(model, **parameters), run(meta_copy(model), None, planning=True, **parameters)
    assert figures(planned).weights_bytes == figures(real).weights_bytes
    assert figures(planned).linear_dtypes == figures(real).linear_dtypes
    assert planned.achieved["quantized"] == real.achieved["quantized"]


@pytest.mark.parametrize("scheme", sorted(EVERYWHERE))
def test_zeros_of_a_pruned_model_stay_exactly_zero(run: Callable[..., Any], vit: nn.Module, scheme: str) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in vit.modules():
            if isinstance(module, nn.Linear):
                module.weight *= torch.rand(module.weight.shape, generator=generator) > 0.9
    ran = run(vit, scheme=scheme, **EVERYWHERE[scheme])
    for path in ran.achieved["quantized"]:
        before, after = ran.before.get_parameter(f"{path}.weight"), ran.model.get_parameter(f"{path}.weight")
        assert (after.dequantize()[before == 0] == 0).all()
    sparsity_before = model_figures(ran.before, adapter=ran.adapter, example_shape=(1, 3, 32, 32)).sparsity_pct
    assert figures(ran).sparsity_pct >= sparsity_before > 70


@pytest.mark.parametrize("scheme", sorted(EVERYWHERE))
def test_rows_that_pruning_emptied_stay_zero_and_logits_finite(
    run: Callable[..., Any], vit: nn.Module, pixels: torch.Tensor, scheme: str
) -> None:
    path = "vit.layers.0.mlp.fc1"
    with torch.no_grad():
        vit.get_parameter(f"{path}.weight")[:3] = 0
    ran = run(vit, scheme=scheme, **EVERYWHERE[scheme])
    assert (ran.model.get_parameter(f"{path}.weight").dequantize()[:3] == 0).all()
    assert torch.isfinite(ran.logits(pixels)).all()


@pytest.mark.parametrize("scheme", sorted(EVERYWHERE))
def test_same_seed_gives_the_same_logits_bit_for_bit(
    run: Callable[..., Any], vit: nn.Module, pixels: torch.Tensor, scheme: str
) -> None:
    first, second = (run(vit, scheme=scheme, seed=5, **EVERYWHERE[scheme]) for _ in range(2))
    assert torch.equal(first.logits(pixels), second.logits(pixels))


@pytest.mark.parametrize("scheme", sorted(EVERYWHERE))
def test_nothing_is_left_on_the_model_but_quantized_weights(
    run: Callable[..., Any], vit: nn.Module, scheme: str
) -> None:
    ran = run(vit, scheme=scheme, **EVERYWHERE[scheme])
    assert not any(parameter.requires_grad for parameter in ran.model.parameters())
    for path, module in ran.model.named_modules():
        assert not module._forward_pre_hooks, path
        assert not module._forward_hooks, path
        assert "extra_repr" not in vars(module), path


def test_a_copy_of_a_quantized_model_does_not_keep_the_original_alive(run: Callable[..., Any], vit: nn.Module) -> None:
    import gc
    import weakref

    ran = run(vit)
    model, ran.model = ran.model, None
    alive = weakref.ref(model.vit)
    twin = copy.deepcopy(model)
    del model
    gc.collect()
    assert alive() is None
    assert twin is not None


@pytest.mark.parametrize(
    "parameters",
    [
        *({"scheme": scheme, **options} for scheme, options in EVERYWHERE.items()),
        {"scheme": "int8-qat", "training": {"steps": 1, "distill": 0}},
        {"scheme": "int8-static", "naive": True},
    ],
    ids=str,
)
def test_saved_and_loaded_it_gives_the_same_logits(
    parameters: dict[str, Any], vit: nn.Module, pixels: torch.Tensor, images: Callable[..., Any], tmp_path: Path
) -> None:
    data = pah_opt.Data(test=images(vit, 8, seed=1), train=images(vit, 40))
    recipe = pah_opt.Recipe(steps=[pah_opt.Step.of("torchao", **parameters)])
    artifact = pah_opt.apply(vit, recipe, data=data)
    artifact.save(tmp_path / "quantized")
    again = pah_opt.load(tmp_path / "quantized")
    with torch.no_grad():
        assert torch.equal(again.model(pixels).logits, artifact.model(pixels).logits)


@pytest.mark.parametrize("scheme", sorted(EVERYWHERE))
def test_bfloat16_models_are_quantized_and_answer_in_bfloat16(
    run: Callable[..., Any], vit: nn.Module, scheme: str
) -> None:
    ran = run(vit.to(torch.bfloat16), scheme=scheme, **EVERYWHERE[scheme])
    logits = ran.logits(tiny_images(4, seed=7).to(torch.bfloat16))
    assert logits.dtype is torch.bfloat16
    assert torch.isfinite(logits).all()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", sorted(EVERYWHERE))
def test_compiled_gives_the_same_answer(
    run: Callable[..., Any], vit: nn.Module, pixels: torch.Tensor, scheme: str
) -> None:
    ran = run(vit, scheme=scheme, **EVERYWHERE[scheme])
    eager = ran.logits(pixels)
    with torch.no_grad():
        compiled = torch.compile(ran.model, backend="aot_eager")(pixels).logits
    assert torch.allclose(compiled, eager, atol=0.02 * float(eager.abs().max()))


@pytest.mark.parametrize("scheme", ["int8-dynamic", "int8-static"])
def test_weights_use_half_the_steps_where_int8_products_overflow(
    run: Callable[..., Any],
    vit: nn.Module,
    pixels: torch.Tensor,
    scheme: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CPUs without VNNI add pairs of products in 16 bits, which saturate unless weights use half the range."""
    import torchao.utils

    monkeypatch.setattr(torchao.utils, "should_reduce_range", lambda device: True)
    ran = run(vit, scheme=scheme)
    weight = ran.model.vit.layers[0].mlp.fc1.weight
    assert int(weight.qdata.abs().max()) == 64
    assert not weight.act_quant_kwargs.reduce_range, "the inputs use all steps"
    assert ran.error(pixels) < 0.1


def test_quantizing_leaves_torch_compile_settings_of_the_process_alone(run: Callable[..., Any], vit: nn.Module) -> None:
    from torch._inductor import config

    before = config.get_config_copy()
    for scheme, options in EVERYWHERE.items():
        run(vit, scheme=scheme, **options)
    assert config.get_config_copy() == before


@pytest.mark.parametrize(("scheme", "told"), [("int8-dynamic", True), ("int8-weight-only", False)])
@pytest.mark.parametrize("slow", [True, False])
def test_where_int8_products_are_slow_the_report_says_so(
    run: Callable[..., Any], vit: nn.Module, monkeypatch: pytest.MonkeyPatch, scheme: str, told: bool, slow: bool
) -> None:
    monkeypatch.setattr("pah_opt.strategies.torchao.apply.multiplies_int8", lambda device: not slow)
    assert ("slow_products" in run(vit, scheme=scheme).achieved) == (told and slow)


@pytest.mark.parametrize("size", [16, 32])
def test_a_dry_run_to_int4_gives_the_tensors_that_a_real_one_does(size: int) -> None:
    from pah_opt.strategies.torchao.convert import expect_int4, quantize_int4

    expected, real = nn.Linear(64, 48), nn.Linear(64, 48)
    expect_int4(expected.to("meta"), size)
    quantize_int4(real, size)
    for name in ("qdata", "scale", "zero_point"):
        found, wanted = (getattr(layer.weight, name) for layer in (expected, real))
        assert (found.shape, found.dtype, found.device.type) == (wanted.shape, wanted.dtype, "meta")
    assert (expected.weight.group_size, expected.weight.dtype) == (real.weight.group_size, real.weight.dtype)
