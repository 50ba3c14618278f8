"""Layers without biases: means that nothing can take up are in the regressions, and what cannot be done is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.optimizer import AnyOptimizer
from pah_opt.strategies.structured.strategy import DepthPruning, StructuredPruning, WidthPruning
from pah_opt.testing import tiny_dinov2, tiny_timm_vit, tiny_vit

WAYS: list[tuple[AnyOptimizer, dict[str, Any]]] = [
    (StructuredPruning(), {"heads": 0.5, "mlp": 0.5}),
    (DepthPruning(), {"count": 1}),
    (WidthPruning(), {"ratio": 0.25}),
]


def without_biases(model: nn.Module) -> nn.Module:
    """Spread the weights, take the biases of linear layers away, and give tokens a mean."""
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(6.0)
                layer.bias = None
            elif isinstance(layer, nn.LayerNorm):
                layer.bias.fill_(0.7)
    return model


@pytest.mark.parametrize(("optimizer", "parameters"), WAYS, ids=lambda each: getattr(each, "name", ""))
@pytest.mark.parametrize("make", [tiny_vit, tiny_dinov2])
def test_least_squares_makes_no_layer_without_bias_worse(
    bench: Any, optimizer: AnyOptimizer, parameters: dict[str, Any], make: Any
) -> None:
    model = without_biases(make(blocks=4))
    images, wanted = bench.images(model, count=256), bench.logits(model, count=32)
    errors = {}
    for repair in ("none", "least-squares"):
        made, _ = bench.run(optimizer, model, images, repair=repair, **parameters)
        errors[repair] = float((bench.logits(made, count=32) - wanted).norm())
    assert errors["least-squares"] < errors["none"]


@pytest.mark.parametrize(("optimizer", "parameters"), WAYS, ids=lambda each: getattr(each, "name", ""))
def test_a_mean_that_no_bias_can_take_up_is_refused(
    bench: Any, optimizer: AnyOptimizer, parameters: dict[str, Any]
) -> None:
    [found] = bench.problems(optimizer, without_biases(tiny_vit()), repair="mean", **parameters)
    assert "the layers that would take it up have none; use repair: least-squares, or none" in found


def test_gradients_and_widths_of_a_bare_backbone_are_refused(bench: Any) -> None:
    bare = tiny_timm_vit(classes=0)
    [gradients] = bench.problems(StructuredPruning(), bare, mlp=0.5, importance="taylor")
    [width] = bench.problems(WidthPruning(), bare, ratio=0.25)
    assert gradients == "loss gradients need a classifier, and this model is a bare backbone; use importance: magnitude"
    assert width.startswith("a bare backbone returns its embedding, whose width would change")
