"""Quantization-aware training: prepare, train and convert in one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.errors import DataError
from pah_opt.strategies.torchao.convert import quantize
from pah_opt.strategies.torchao.qat import rounding_in_the_loop
from pah_opt.testing import tiny_vit

TRAINING = {"steps": 6, "lr": 3e-3, "batch_size": 24, "distill": 0.0, "warmup": 0.0}


def linears(model: nn.Module) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, nn.Linear) and path != "classifier"]


def test_training_rounds_exactly_as_the_converted_layer_does() -> None:
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(64, 32)), torch.randn(2, 7, 64) + 1
    with torch.no_grad():
        plain = model(inputs)
        with rounding_in_the_loop(model, ["0"]):
            simulated = model(inputs)
        quantize(model, ["0"], "int8-qat")
        real = model(inputs)
    assert (real - simulated).norm() < 1e-3 * (real - plain).norm()


def test_training_learns_and_the_report_says_how(run: Callable[..., Any], vit: nn.Module) -> None:
    achieved = run(vit, scheme="int8-qat", training=TRAINING | {"steps": 25}).achieved
    history = achieved["training"]["history"]
    assert achieved["training"]["steps"] == 25
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_layers_are_plain_linear_ones_afterwards(run: Callable[..., Any], vit: nn.Module) -> None:
    model = run(vit, scheme="int8-qat", training=TRAINING).model
    for path in linears(model):
        assert type(model.get_submodule(path)) is nn.Linear
        assert not list(model.get_submodule(path).children())


def test_an_error_inside_gives_the_layers_back(vit: nn.Module) -> None:
    before = {path: type(module) for path, module in vit.named_modules()}
    with pytest.raises(RuntimeError, match="inside"), rounding_in_the_loop(vit, linears(vit)):
        raise RuntimeError("inside")
    assert {path: type(module) for path, module in vit.named_modules()} == before


def test_gradients_pass_through_the_rounding(vit: nn.Module, pixels: torch.Tensor) -> None:
    with rounding_in_the_loop(vit, linears(vit)):
        vit(pixels).logits.sum().backward()
    assert vit.vit.layers[0].mlp.fc1.weight.grad.abs().sum() > 0


def test_pruned_weights_stay_zero_through_training(run: Callable[..., Any], vit: nn.Module) -> None:
    with torch.no_grad():
        for path in linears(vit):
            weight = vit.get_submodule(path).weight
            weight *= torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) > 0.5
    ran = run(vit, scheme="int8-qat", training=TRAINING)
    for path in linears(vit):
        before, after = vit.get_submodule(path).weight, ran.model.get_parameter(f"{path}.weight").dequantize()
        assert (after[before == 0] == 0).all()
        assert not torch.equal(after[before != 0], before[before != 0])


def test_only_layers_with_that_scheme_are_rounded_in_training(run: Callable[..., Any]) -> None:
    ran = run(tiny_vit(hidden=64, mlp=128), scheme="int8-qat", per_layer={"mlp": "float"}, training=TRAINING)
    assert all("attention" in path for path in ran.achieved["quantized"])


@pytest.mark.parametrize("observing", [{"guarded": {"max_kl": 1.0}}, {"per_layer": {"mlp": "int8-static"}}], ids=str)
@pytest.mark.parametrize("wrong", ["few", "nan"])
def test_images_to_observe_are_looked_at_before_training(
    run: Callable[..., Any],
    images: Callable[..., Any],
    vit: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
    observing: dict[str, Any],
    wrong: str,
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("training started")

    monkeypatch.setattr("pah_opt.strategies.torchao.apply.train", never)
    split = images(vit, 3 if wrong == "few" else 12)
    if wrong == "nan":
        split.pixel_values[11] = float("nan")
    with pytest.raises(DataError, match="at least 8 calibration images and has 3" if wrong == "few" else "NaN"):
        run(vit, split, scheme="int8-qat", training=TRAINING, **observing)


def test_without_training_images_it_is_refused(run: Callable[..., Any], vit: nn.Module) -> None:
    with pytest.raises(DataError, match="no training images"):
        run(vit, None, scheme="int8-qat")
