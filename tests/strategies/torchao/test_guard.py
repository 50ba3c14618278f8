"""Sensitivity of layers, and keeping a limit by leaving the most damaging ones in float."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.errors import UnsupportedModelError
from pah_opt.strategies.torchao import TorchaoConfig, sensitivity
from pah_opt.strategies.torchao.divergence import divergence
from pah_opt.strategies.torchao.scan import replayed
from pah_opt.testing import TINY_MODELS, tiny_images

INT4 = {"scheme": "int4-weight-only", "rounding": "nearest", "group_size": 32}
STATIC = {"scheme": "int8-static", "smooth": None}


def test_divergence_against_hand_made_numbers() -> None:
    before = torch.tensor([[0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    after = torch.tensor([[0.0, 0.0], [torch.log(torch.tensor(3.0)), 0.0]], dtype=torch.float64)
    found = divergence([before], [after], [torch.tensor([0, 1])])
    # The second image's classes go from 1/2, 1/2 to 3/4, 1/4.
    wanted = 0.5 * (0.5 * torch.log(torch.tensor(0.5 / 0.75)) + 0.5 * torch.log(torch.tensor(0.5 / 0.25)))
    assert found.kl == pytest.approx(float(wanted), rel=1e-6)
    assert divergence([before], [before], [torch.tensor([0, 1])]).kl == 0


def test_divergence_counts_accuracy_lost_in_points() -> None:
    right, wrong = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64).roll(1, dims=1)
    assert divergence([right], [wrong], [torch.arange(4)]).top1_drop_pp == 100.0


@pytest.mark.parametrize("how", [INT4, STATIC], ids=lambda how: how["scheme"])
def test_scan_measures_what_quantizing_that_layer_alone_does(
    run: Callable[..., Any],
    adapter: Callable[..., Any],
    images: Callable[..., Any],
    vit: nn.Module,
    how: dict[str, Any],
) -> None:
    split, found = images(vit, 16), {}
    scan = sensitivity(vit, adapter(vit), split, TorchaoConfig(**how))
    with torch.no_grad():
        reference = vit(split.pixel_values).logits.double()
        for layer in scan:
            alone = run(vit, split, include=(layer.path,), **how)
            logits = alone.model(split.pixel_values).logits.double()
            found[layer.path] = divergence([reference], [logits], [split.labels])
    assert len(scan) == 12
    for layer in scan:
        assert layer.kl == pytest.approx(found[layer.path].kl, rel=1e-3)
        assert layer.mse == pytest.approx(found[layer.path].mse, rel=1e-3)


def test_scan_lists_the_most_damaging_layer_first(
    adapter: Callable[..., Any], images: Callable[..., Any], vit: nn.Module
) -> None:
    with torch.no_grad():  # one weight in each group of this layer leaves no steps for the others
        vit.vit.layers[1].mlp.fc1.weight[:, ::32] *= 20
    scan = sensitivity(vit, adapter(vit), images(vit, 16), TorchaoConfig(**INT4))
    assert scan[0].path == "vit.layers.1.mlp.fc1"
    assert [layer.kl for layer in scan] == sorted((layer.kl for layer in scan), reverse=True)


def test_scan_by_accuracy_orders_by_what_is_lost_and_then_by_the_logits(
    adapter: Callable[..., Any], images: Callable[..., Any], vit: nn.Module
) -> None:
    split = images(vit, 40)
    with torch.no_grad():
        split.labels.copy_(vit(split.pixel_values).logits.argmax(dim=1))
    coarse = TorchaoConfig(scheme="int4-weight-only", rounding="nearest", group_size=64)
    scan = sensitivity(vit, adapter(vit), split, coarse, by="top1_drop_pp")
    lost = [(layer.top1_drop_pp, layer.kl) for layer in scan]
    assert lost == sorted(lost, reverse=True)
    assert lost != sorted(lost, key=lambda one: one[1], reverse=True)


def test_scan_leaves_the_model_untouched(
    adapter: Callable[..., Any], images: Callable[..., Any], vit: nn.Module, pixels: torch.Tensor
) -> None:
    modules, before = list(vit.modules()), vit(pixels).logits
    weights = dict(vit.named_parameters())
    sensitivity(vit, adapter(vit), images(vit, 16), TorchaoConfig(skip=(), scheme="int8-weight-only"))
    assert list(vit.modules()) == modules
    assert all(parameter is weights[name] for name, parameter in vit.named_parameters())
    assert torch.equal(vit(pixels).logits, before)
    assert all(parameter.requires_grad for parameter in vit.parameters())


@pytest.mark.parametrize("family", sorted(TINY_MODELS))
def test_every_family_can_be_run_from_a_block_on(adapter: Callable[..., Any], family: str) -> None:
    model = TINY_MODELS[family]()
    knows = adapter(model)
    model = knows.prepare(model).eval()
    layout, pixels = knows.layout(model), tiny_images(3)
    outputs: list[Any] = []
    handles = [
        model.get_submodule(b.path).register_forward_hook(lambda *seen: outputs.append(seen[-1])) for b in layout.blocks
    ]
    with torch.no_grad():
        whole = knows.logits(model(pixels))
        for handle in handles:
            handle.remove()
        for index in range(len(layout.blocks) + 1):
            with replayed(model, layout, index, outputs):
                assert torch.equal(knows.logits(model(pixels)), whole)
    assert knows.layout(model) == layout


def test_guard_leaves_the_most_damaging_layer_in_float(run: Callable[..., Any], vit: nn.Module) -> None:
    with torch.no_grad():
        vit.vit.layers[1].mlp.fc1.weight[:, ::32] *= 20
    free = run(vit, guarded={"max_kl": 1e9}, **INT4)
    limit = free.achieved["guarded"]["all_quantized"]["kl"] / 2
    kept = run(vit, guarded={"max_kl": limit}, **INT4)
    report = kept.achieved["guarded"]
    assert free.achieved["guarded"]["left_in_float"] == []
    assert report["left_in_float"][0] == "vit.layers.1.mlp.fc1"
    assert report["reached"]["kl"] <= limit < report["all_quantized"]["kl"]
    assert kept.achieved["left_in_float"]["vit.layers.1.mlp.fc1"] == "given back by guarded"
    assert torch.equal(kept.model.vit.layers[1].mlp.fc1.weight, vit.vit.layers[1].mlp.fc1.weight)


def test_layers_that_the_guard_gives_back_compute_exactly_what_they_did(
    run: Callable[..., Any], vit: nn.Module
) -> None:
    everything = run(vit, guarded={"max_kl": 1e9}, **STATIC).achieved["guarded"]["all_quantized"]["kl"]
    ran = run(vit, guarded={"max_kl": everything / 2}, **STATIC)
    restored = ran.achieved["guarded"]["left_in_float"]
    corrected = set(ran.achieved["quantized"])
    assert restored
    for path in restored:  # static int8 corrects the bias too, for the rounding that is no longer there
        assert torch.equal(ran.model.get_parameter(f"{path}.weight"), vit.get_parameter(f"{path}.weight"))
        assert torch.equal(ran.model.get_parameter(f"{path}.bias"), vit.get_parameter(f"{path}.bias"))
    for path in corrected:
        assert not torch.equal(ran.model.get_parameter(f"{path}.bias"), vit.get_parameter(f"{path}.bias"))


def test_guard_gives_back_no_more_layers_than_it_takes(run: Callable[..., Any], vit: nn.Module) -> None:
    everything = run(vit, guarded={"max_kl": 1e9}, **INT4).achieved["guarded"]["all_quantized"]["kl"]
    report = run(vit, guarded={"max_kl": everything / 3}, **INT4).achieved["guarded"]
    restored = report["left_in_float"]
    assert 0 < len(restored) < 12
    assert restored == [layer["path"] for layer in report["sensitivity"]][: len(restored)]
    fewer = run(vit, skip=("classifier", *restored[:-1]), guarded={"max_kl": 1e9}, **INT4)
    assert fewer.achieved["guarded"]["all_quantized"]["kl"] > everything / 3


def test_guard_reports_the_divergence_of_the_model_that_it_leaves(
    run: Callable[..., Any], images: Callable[..., Any], vit: nn.Module
) -> None:
    everything = run(vit, guarded={"max_kl": 1e9}, **INT4).achieved["guarded"]["all_quantized"]["kl"]
    split = images(vit, 24)
    ran = run(vit, split, guarded={"max_kl": everything / 2}, **INT4)
    with torch.no_grad():
        before, after = (m(split.pixel_values).logits.double() for m in (vit, ran.model))
    measured = divergence([before], [after], [split.labels])
    assert ran.achieved["guarded"]["reached"]["kl"] == pytest.approx(measured.kl, rel=1e-3)


def test_a_limit_that_no_quantized_layer_keeps_is_refused(run: Callable[..., Any], vit: nn.Module) -> None:
    with pytest.raises(UnsupportedModelError, match="already passes the limit \\(max_kl 1e-300\\)"):
        run(vit, guarded={"max_kl": 1e-300}, **INT4)


def test_accuracy_can_be_the_limit(run: Callable[..., Any], images: Callable[..., Any], vit: nn.Module) -> None:
    split = images(vit, 40)
    with torch.no_grad():
        split.labels.copy_(vit(split.pixel_values).logits.argmax(dim=1))  # so that the float model is always right
    coarse = {"scheme": "int4-weight-only", "rounding": "nearest", "group_size": 64}
    lost = run(copy.deepcopy(vit), split, guarded={"max_drop_pp": 100}, **coarse).achieved["guarded"]["all_quantized"]
    assert lost["top1_drop_pp"] > 0
    limit = lost["top1_drop_pp"] / 2
    report = run(vit, split, guarded={"max_drop_pp": limit}, **coarse).achieved["guarded"]
    assert report["reached"]["top1_drop_pp"] <= limit
    assert report["left_in_float"]
    alone = [layer["top1_drop_pp"] for layer in report["sensitivity"]]
    assert alone == sorted(alone, reverse=True)


@pytest.mark.parametrize("family", sorted(TINY_MODELS))
def test_every_family_can_be_scanned_as_it_is_loaded(
    family: str, run: Callable[..., Any], adapter: Callable[..., Any], images: Callable[..., Any]
) -> None:
    model = TINY_MODELS[family]()
    split = images(model, 16)
    scan = sensitivity(model, adapter(model), split, TorchaoConfig(scheme="int8-static"))
    assert {layer.path for layer in scan} == set(run(model, split, scheme="int8-static").achieved["quantized"])


def test_a_layer_that_overflows_is_the_most_damaging(run: Callable[..., Any], vit: nn.Module) -> None:
    """Its divergence is NaN, which no sort puts anywhere."""
    block: Any = vit.get_submodule("vit.layers.1.mlp")
    with torch.no_grad():
        block.fc1.bias.fill_(20)  # inputs of fc2 are about 20
        block.fc2.weight.fill_(0.001)  # 127 in every place: 127 * 20 * 128 is more than fp16 holds
    report = run(vit.half(), scheme="int8-weight-only", guarded={"max_kl": 1.0}).achieved["guarded"]
    assert report["left_in_float"] == ["vit.layers.1.mlp.fc2"]
