"""Importances agree with torch-pruning's, and with what they are defined as."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pah_opt.strategies.structured.scores import activation, hessian, lamp, magnitude, taylor, uniform_random
from pah_opt.strategies.structured.weights import unit_weights
from pah_opt.testing import tiny_dinov2, tiny_vit


def reference(model: Any, layer: torch.nn.Linear, importance: Any) -> Tensor:
    """What torch-pruning says about every output of ``layer``."""
    import torch_pruning

    pixels = torch.zeros(1, 3, 32, 32)
    graph = torch_pruning.DependencyGraph().build_dependency(
        model, (pixels,), output_transform=lambda output: output.logits, verbose=False
    )
    group = graph.get_pruning_group(layer, torch_pruning.prune_linear_out_channels, list(range(layer.out_features)))
    score: Tensor = importance(group)
    return score


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("swiglu", [False, True])
def test_magnitude_of_units_is_torch_prunings(p: int, swiglu: bool) -> None:
    from torch_pruning.pruner.importance import GroupMagnitudeImportance

    model = tiny_dinov2(swiglu=swiglu)
    block = layout_of(model).blocks[0]
    theirs = reference(model, model.get_submodule(block.mlp.fc1), GroupMagnitudeImportance(p=p))
    torch.testing.assert_close(magnitude(unit_weights(model, block, "mlp"), p), theirs)


def test_magnitude_of_heads_is_torch_prunings_mean_over_each_head() -> None:
    from torch_pruning.pruner.importance import GroupMagnitudeImportance

    model = tiny_vit()
    block = layout_of(model).blocks[1]
    theirs = reference(model, model.get_submodule(block.attention.query), GroupMagnitudeImportance(p=2))
    per_head = theirs.reshape(block.attention.num_heads, -1).mean(1)
    torch.testing.assert_close(magnitude(unit_weights(model, block, "heads")), per_head)


def test_lamp_of_units_is_torch_prunings() -> None:
    from torch_pruning.pruner.importance import LAMPImportance

    model = tiny_vit()
    block = layout_of(model).blocks[0]
    theirs = reference(model, model.get_submodule(block.mlp.fc1), LAMPImportance(p=2))
    torch.testing.assert_close(lamp(unit_weights(model, block, "mlp")), theirs)


def test_lamp_of_the_largest_unit_is_one() -> None:
    weights = [torch.tensor([[1.0], [3.0], [2.0]])]
    torch.testing.assert_close(lamp(weights), torch.tensor([1 / 14, 1.0, 4 / 13]))


def test_magnitude_of_silent_layers_is_zero_and_finite() -> None:
    assert magnitude([torch.zeros(3, 4)]).tolist() == [0.0, 0.0, 0.0]
    assert torch.isfinite(lamp([torch.zeros(3, 4)])).all()


@pytest.mark.parametrize("unit", [1, 3])
def test_activation_is_the_energy_of_each_units_contribution(unit: int) -> None:
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(50, 6, generator=generator, dtype=torch.float64) + 1
    weight = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    found = activation(weight, data.T @ data / 50, unit)
    parts = (data[:, None] * weight).reshape(50, 4, 6 // unit, unit).sum(-1)
    torch.testing.assert_close(found, parts.square().sum(1).mean(0))


def test_taylor_is_absolute_and_hessian_half_the_square_over_images() -> None:
    gates = torch.tensor([[1.0, -2.0], [-3.0, 0.0]])
    assert taylor(gates).tolist() == [2.0, 1.0]
    assert hessian(gates).tolist() == [2.5, 1.0]


def layout_of(model: torch.nn.Module) -> Any:
    from pah_opt.models import find_adapter
    from pah_opt.models.builtin import pah_opt_model_adapters

    return find_adapter(model, tuple(pah_opt_model_adapters())).layout(model)


def test_random_scores_do_not_depend_on_torchs_defaults() -> None:
    wanted, before = uniform_random(6, torch.Generator().manual_seed(1)), torch.get_default_dtype()
    generator = torch.Generator().manual_seed(1)
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            found = uniform_random(6, generator)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(found, wanted)
