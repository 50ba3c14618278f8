"""What every scheme promises, on every family of Vision Transformers, on the CPU."""

from __future__ import annotations

import copy
import logging
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

KINDS: list[dict[str, Any]] = [
    {"scheme": "int8"},
    {"scheme": "int8", "threshold": 0},
    {"scheme": "nf4"},
    {"scheme": "fp4", "blocksize": 32},
    {"scheme": "nf4", "double_quant": True},
]
LARGEST_ERROR = {"int8": 0.06, "nf4": 0.35, "fp4": 0.4}


def figures(ran: Any) -> Any:
    return model_figures(ran.model, adapter=ran.adapter, example_shape=(1, 3, 32, 32))


@pytest.mark.parametrize("family", sorted(TINY_MODELS))
@pytest.mark.parametrize("parameters", KINDS, ids=str)
def test_every_family_takes_every_scheme_and_stays_close(
    run: Callable[..., Any], family: str, parameters: dict[str, Any]
) -> None:
    ran = run(TINY_MODELS[family](), **parameters)
    found, before = figures(ran), model_figures(ran.before, adapter=ran.adapter, example_shape=(1, 3, 32, 32))
    assert found.linear_dtypes[parameters["scheme"]] == len(ran.achieved["quantized"]) > 0
    assert found.weights_bytes < before.weights_bytes
    assert (found.params, found.macs) == (before.params, before.macs)
    assert ran.error(tiny_images(4, seed=7)) < LARGEST_ERROR[parameters["scheme"]]


@pytest.mark.parametrize("parameters", KINDS, ids=str)
def test_quantization_really_happens_on_the_cpu(run: Callable[..., Any], vit: nn.Module, parameters: Any) -> None:
    ran = run(vit, **parameters)
    weight = ran.model.vit.layers[0].mlp.fc1.weight
    assert weight.dtype is (torch.int8 if parameters["scheme"] == "int8" else torch.uint8)
    assert weight.nbytes == 64 * 128 // (1 if parameters["scheme"] == "int8" else 2)


@pytest.mark.parametrize("parameters", [*KINDS, {"scheme": "nf4", "double_quant": True, "blocksize": 128}], ids=str)
def test_planned_bytes_are_the_bytes_that_come(
    run: Callable[..., Any], vit: nn.Module, parameters: dict[str, Any]
) -> None:
    real, planned = run(vit, **parameters), run(meta_copy(vit), planning=True, **parameters)
    assert figures(planned).weights_bytes == figures(real).weights_bytes
    assert figures(planned).linear_dtypes == figures(real).linear_dtypes


@pytest.mark.parametrize("parameters", KINDS, ids=str)
def test_saved_and_loaded_it_gives_the_same_logits(
    parameters: dict[str, Any], vit: nn.Module, pixels: torch.Tensor, tmp_path: Path
) -> None:
    artifact = pah_opt.apply(vit, pah_opt.Recipe(steps=[pah_opt.Step.of("bitsandbytes", **parameters)]))
    with torch.no_grad():
        wanted = artifact.model(pixels).logits
        artifact.save(tmp_path / "quantized")  # after a forward pass, which must not have changed the weights
        again = pah_opt.load(tmp_path / "quantized")
        assert torch.equal(again.model(pixels).logits, wanted)
        assert torch.equal(artifact.model(pixels).logits, wanted)


@pytest.mark.parametrize("parameters", KINDS, ids=str)
def test_zeros_of_a_pruned_model_stay_exactly_zero(
    run: Callable[..., Any], vit: nn.Module, parameters: dict[str, Any]
) -> None:
    from pah_opt.measure.tensors import dense_values

    with torch.no_grad():
        for module in vit.modules():
            if isinstance(module, nn.Linear):
                module.weight *= torch.rand(module.weight.shape, generator=torch.Generator().manual_seed(0)) > 0.9
    ran = run(vit, **parameters)
    for path in ran.achieved["quantized"]:
        before, after = ran.before.get_parameter(f"{path}.weight"), ran.model.get_parameter(f"{path}.weight")
        assert (dense_values(after).reshape(before.shape)[before == 0] == 0).all()


@pytest.mark.parametrize("parameters", KINDS, ids=str)
def test_widths_that_fit_no_block_work_too(run: Callable[..., Any], parameters: dict[str, Any]) -> None:
    ran = run(tiny_vit(hidden=20, mlp=35, heads=2), **parameters)
    assert ran.error(tiny_images(2, seed=7)) < LARGEST_ERROR[parameters["scheme"]] * 1.5


@pytest.mark.parametrize("parameters", [{"scheme": "nf4", "double_quant": True}, {"scheme": "fp4"}], ids=str)
def test_a_forward_pass_changes_no_weight(
    run: Callable[..., Any], vit: nn.Module, pixels: torch.Tensor, parameters: dict[str, Any]
) -> None:
    """bitsandbytes repacks weights on the first pass on some CPUs, losing bits of their scales."""
    ran = run(vit, **parameters)
    before = copy.deepcopy(ran.model.vit.layers[0].mlp.fc1.weight)
    bytes_before = figures(ran).weights_bytes
    ran.logits(pixels)
    after = ran.model.vit.layers[0].mlp.fc1.weight
    assert torch.equal(after, before)
    assert torch.equal(after.quant_state.absmax, before.quant_state.absmax)
    assert figures(ran).weights_bytes == bytes_before


def test_outlier_threshold_keeps_large_channels_in_half_precision(
    run: Callable[..., Any], vit: nn.Module, pixels: torch.Tensor
) -> None:
    with torch.no_grad():
        for name, module in vit.named_modules():
            if isinstance(module, nn.LayerNorm) and ".layers." in name:
                module.weight[:2] *= 100.0
            if name.endswith(("q_proj", "k_proj", "v_proj", "fc1")):
                module.weight[:, :2] /= 50.0
    with_outliers, without = (run(vit, scheme="int8", threshold=t).error(pixels) for t in (6.0, 0))
    assert with_outliers < without / 2


def test_smaller_blocks_are_more_accurate_and_larger(
    run: Callable[..., Any], vit: nn.Module, pixels: torch.Tensor
) -> None:
    small, large = run(vit, scheme="nf4", blocksize=32), run(vit, scheme="nf4", blocksize=1024)
    assert small.error(pixels) < large.error(pixels)
    assert figures(small).weights_bytes > figures(large).weights_bytes


def test_double_quantization_saves_bytes() -> None:
    model = tiny_vit(hidden=128, mlp=512)  # where there are enough scales for their own table not to matter
    sizes = {}
    for double in (False, True):
        step = pah_opt.Step.of("bitsandbytes", scheme="nf4", double_quant=double, blocksize=32)
        sizes[double] = pah_opt.apply(model, pah_opt.Recipe(steps=[step])).steps[0].after["weights_bytes"]
    assert sizes[True] < sizes[False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compute", [None, "bf16", "fp32"])
def test_products_are_computed_in_the_type_asked_for(
    run: Callable[..., Any], vit: nn.Module, dtype: torch.dtype, compute: str | None
) -> None:
    ran = run(vit.to(dtype), scheme="nf4", compute_dtype=compute)
    layer = ran.model.vit.layers[0].mlp.fc1
    assert layer.compute_dtype is ({"bf16": torch.bfloat16, "fp32": torch.float32}[compute] if compute else dtype)
    logits = ran.logits(tiny_images(2).to(dtype))
    assert logits.dtype is dtype
    assert torch.isfinite(logits).all()


def test_int8_says_nothing_in_every_forward_pass(
    run: Callable[..., Any], vit: nn.Module, pixels: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        run(vit, scheme="int8").logits(pixels)
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]


def test_classifier_stays_in_float_and_the_report_says_so(run: Callable[..., Any], vit: nn.Module) -> None:
    ran = run(vit)
    assert type(ran.model.classifier) is nn.Linear
    assert "skip" in ran.achieved["left_in_float"]["classifier"]
    assert not any(parameter.requires_grad for path in ran.achieved["quantized"]
                   for parameter in ran.model.get_submodule(path).parameters())  # fmt: skip


def test_include_and_skip_choose_layers(run: Callable[..., Any], vit: nn.Module) -> None:
    achieved = run(vit, include=("mlp",), skip=("*.0.*",)).achieved
    assert set(achieved["quantized"]) == {"vit.layers.1.mlp.fc1", "vit.layers.1.mlp.fc2"}


@pytest.mark.parametrize(("dtype", "compute"), [(torch.float32, "bf16"), (torch.bfloat16, "fp32")])
def test_figures_stay_after_products_in_another_type(
    dtype: torch.dtype, compute: str, run: Callable[..., Any], vit: nn.Module
) -> None:
    """bitsandbytes casts biases to the type of the products in the first forward pass."""
    ran = run(vit.to(dtype), scheme="nf4", compute_dtype=compute)
    before = figures(ran)
    with torch.inference_mode():
        ran.model(tiny_images(2).to(dtype))
    assert figures(ran) == before


@pytest.mark.parametrize("scheme", ["int8", "nf4"])
def test_half_precision_without_biases_can_be_counted(scheme: str, run: Callable[..., Any], vit: nn.Module) -> None:
    for module in vit.modules():
        if isinstance(module, nn.Linear):
            module.register_parameter("bias", None)
    assert figures(run(vit.bfloat16(), scheme=scheme)).macs > 0
