from __future__ import annotations

import pytest
import torch
from torch import nn

from pah_opt.strategies.unstructured.gradients import GradientSums, add_gradient, add_squared_gradients
from pah_opt.strategies.unstructured.importance import lamp, optimal_brain_damage, random_scores, taylor, wanda
from pah_opt.strategies.unstructured.prune import ALL


def test_lamp_is_the_square_over_the_squares_that_are_not_smaller() -> None:
    found = lamp(torch.tensor([[3.0, -1.0], [2.0, 0.0]]))
    assert torch.allclose(found, torch.tensor([[1.0, 1 / 14], [4 / 13, 0.0]]))


def test_lamp_keeps_the_order_of_magnitudes_within_a_layer() -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, 30)
    assert torch.equal(lamp(weight).flatten().argsort(), weight.abs().flatten().argsort())


def test_lamp_does_not_depend_on_the_scale_of_a_layer() -> None:
    torch.manual_seed(0)
    weight = torch.randn(8, 8)
    assert torch.allclose(lamp(weight), lamp(100 * weight))


def test_lamp_of_a_layer_of_zeros_is_zero() -> None:
    assert torch.equal(lamp(torch.zeros(3, 3)), torch.zeros(3, 3))


def test_taylor_predicts_what_dropping_a_weight_of_a_linear_loss_costs() -> None:
    torch.manual_seed(0)
    weight, slope = torch.randn(4, 5), torch.randn(4, 5)
    loss = (weight * slope).sum()
    without = loss - (weight * slope).flatten()
    assert torch.allclose(taylor(weight, slope).flatten(), (loss - without).abs(), atol=1e-5)


def test_optimal_brain_damage_is_half_the_curvature_times_the_square() -> None:
    assert optimal_brain_damage(torch.tensor([-2.0]), torch.tensor([3.0])).item() == 6.0


def test_wanda_weighs_each_column_by_its_input() -> None:
    found = wanda(torch.tensor([[-1.0, 2.0], [3.0, 0.0]]), torch.tensor([10.0, 1.0]))
    assert found.tolist() == [[10.0, 2.0], [30.0, 0.0]]


def test_random_scores_are_the_same_each_time_and_differ_by_seed_and_layer() -> None:
    layers = {"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}
    score = random_scores(layers, 1)
    assert torch.equal(score("a", ALL), score("a", ALL))
    assert not torch.equal(score("a", ALL), score("b", ALL))
    assert not torch.equal(score("a", ALL), random_scores(layers, 2)("a", ALL))


@pytest.mark.parametrize("tokens", [(), (7,), (2, 3)])
def test_gradients_from_inputs_and_outputs_are_those_of_autograd(tokens: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    inputs = torch.randn(5, *tokens, 6)
    output = layer(inputs)
    gradient = torch.randn_like(output)
    mean, squares = torch.zeros(4, 6), torch.zeros(4, 6)
    add_gradient(mean, inputs, gradient)
    add_squared_gradients(squares, inputs, gradient)
    (whole,) = torch.autograd.grad(output, layer.weight, gradient)
    each = [
        torch.autograd.grad(layer(image), layer.weight, grad)[0] for image, grad in zip(inputs, gradient, strict=True)
    ]
    assert torch.allclose(mean, whole, atol=1e-5)
    assert torch.allclose(squares, torch.stack(each).square().sum(dim=0), atol=1e-4)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_torchs_defaults_change_neither_random_scores_nor_gradient_sums(default: torch.dtype) -> None:
    layers = {"layer": nn.Linear(4, 3)}
    wanted, before = random_scores(layers, 5)("layer", slice(None)), torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        with torch.device("meta"):
            found, sums = random_scores(layers, 5)("layer", slice(None)), GradientSums.zeros(layers["layer"])
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(found, wanted)
    assert sums.weight.dtype == sums.outputs.dtype == torch.float32
    assert sums.weight.device.type == "cpu"
