from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pah_opt.errors import DataError
from pah_opt.strategies.unstructured.masking import group_mask
from pah_opt.strategies.unstructured.obs import inverse_factor, prune_columns, saliency, towards_dense
from pah_opt.strategies.unstructured.prune import smallest_mask


@pytest.fixture
def inputs() -> Tensor:
    """Correlated inputs, ``(samples, 32)``: with independent ones there would be nothing to make up with."""
    torch.manual_seed(0)
    return torch.randn(500, 12) @ torch.randn(12, 32) + 0.3 * torch.randn(500, 32)


@pytest.fixture
def weight() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(24, 32)


def moment(inputs: Tensor) -> Tensor:
    return inputs.T @ inputs / len(inputs)


def loss(new: Tensor, old: Tensor, hessian: Tensor) -> float:
    change = new - old
    return float((change @ hessian * change).sum())


def half(scores: Tensor, _column: int) -> Tensor:
    return smallest_mask(scores, scores.numel() // 2)


def test_the_factor_is_that_of_the_inverse(inputs: Tensor) -> None:
    hessian = moment(inputs)
    upper, used = inverse_factor(hessian, 0.01)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(32)
    assert used == 0.01
    assert torch.allclose(upper.T @ upper, torch.linalg.inv(damped), rtol=1e-3, atol=1e-4)
    assert torch.equal(upper, upper.triu())


def test_dropping_one_weight_costs_its_saliency_and_no_update_does_better(inputs: Tensor, weight: Tensor) -> None:
    hessian = moment(inputs).double()
    upper, _ = inverse_factor(hessian, 1e-9)
    row = weight[:1].double()

    def first_only(scores: Tensor, column: int) -> Tensor:
        return (torch.arange(scores.shape[1]) + column == 0).expand_as(scores)

    new = prune_columns(row, upper, first_only, block=8, group=8)
    rest = hessian[1:, 1:]
    best = row[:, 1:] + row[:, :1] @ torch.linalg.solve(rest, hessian[1:, :1]).T
    assert new[0, 0] == 0
    assert torch.allclose(new[:, 1:], best)
    assert loss(new, row, hessian) == pytest.approx(float(saliency(row, upper)[0, 0]), rel=1e-5)


@pytest.mark.parametrize("block", [8, 16, 32, 64])
def test_repair_loses_far_less_than_the_same_zeros_without_it(inputs: Tensor, weight: Tensor, block: int) -> None:
    hessian = moment(inputs)
    upper, _ = inverse_factor(hessian, 0.01)
    new = prune_columns(weight, upper, half, block=block, group=block)
    assert int((new == 0).sum()) == weight.numel() // 2
    assert loss(new, weight, hessian) < 0.5 * loss(weight.masked_fill(new == 0, 0), weight, hessian)


def test_repair_beats_the_best_magnitude_mask_by_far(inputs: Tensor, weight: Tensor) -> None:
    hessian = moment(inputs)
    magnitude = weight.masked_fill(smallest_mask(weight.abs(), weight.numel() // 2), 0)
    new = prune_columns(weight, inverse_factor(hessian, 0.01).upper, half, block=32, group=32)
    assert loss(new, weight, hessian) < 0.5 * loss(magnitude, weight, hessian)


@pytest.mark.parametrize(("kept", "group"), [(2, 4), (1, 4), (4, 8)])
def test_patterns_hold_after_the_update(inputs: Tensor, weight: Tensor, kept: int, group: int) -> None:
    upper = inverse_factor(moment(inputs), 0.01).upper
    new = prune_columns(weight, upper, lambda scores, _: group_mask(scores, kept, group), block=16, group=group)
    assert ((new.reshape(-1, group) != 0).sum(dim=1) == kept).all()


def test_zeros_that_are_there_already_stay(inputs: Tensor, weight: Tensor) -> None:
    weight[:, ::4] = 0
    new = prune_columns(weight, inverse_factor(moment(inputs), 0.01).upper, half, block=16, group=16)
    assert (new[:, ::4] == 0).all()
    assert int((new == 0).sum()) == weight.numel() // 2


def test_the_given_weight_is_left_alone(inputs: Tensor, weight: Tensor) -> None:
    before = weight.clone()
    prune_columns(weight, inverse_factor(moment(inputs), 0.01).upper, half, block=16, group=16)
    assert torch.equal(weight, before)


def test_a_block_that_does_not_divide_the_width_is_handled(inputs: Tensor, weight: Tensor) -> None:
    new = prune_columns(weight, inverse_factor(moment(inputs), 0.01).upper, half, block=20, group=20)
    assert int((new == 0).sum()) == weight.numel() // 2


def test_dampening_rises_until_a_broken_hessian_can_be_inverted() -> None:
    hessian = torch.eye(8)
    hessian[0, 0] = -0.5
    upper, used = inverse_factor(hessian, 0.01)
    assert used > 0.5
    assert torch.isfinite(upper).all()


def test_an_input_that_is_always_zero_is_no_obstacle() -> None:
    hessian = torch.diag(torch.tensor([1.0, 0.0, 2.0, 1.0]))
    upper, used = inverse_factor(hessian, 0.01)
    assert used == 0.01
    assert saliency(torch.ones(1, 4), upper)[0].argmin() == 1


def test_a_hessian_of_zeros_is_no_obstacle() -> None:
    assert torch.isfinite(inverse_factor(torch.zeros(4, 4), 0.01).upper).all()


def test_a_hessian_that_no_dampening_saves_is_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match="calibration images"):
        inverse_factor(torch.full((4, 4), torch.nan), 0.01)


def test_weights_towards_the_dense_outputs_are_the_least_squares_solution(inputs: Tensor, weight: Tensor) -> None:
    torch.manual_seed(2)
    errors = inputs @ (0.1 * torch.randn(32, 32)) + 0.1 * torch.randn_like(inputs)
    hessian, moved = moment(inputs), errors.T @ inputs / len(inputs)
    found = towards_dense(weight, hessian, moved, ridge=1e-4)
    wanted = (inputs + errors) @ weight.T
    best = torch.linalg.lstsq(inputs, wanted).solution.T
    distance = (wanted - inputs @ found.T).square().sum()
    assert distance == pytest.approx(float((wanted - inputs @ best.T).square().sum()), rel=1e-2)
    assert distance < 0.9 * (wanted - inputs @ weight.T).square().sum()


def test_without_errors_the_weights_towards_the_dense_outputs_are_the_weights(inputs: Tensor, weight: Tensor) -> None:
    assert torch.equal(towards_dense(weight, moment(inputs), torch.zeros(32, 32), ridge=0.1), weight)


def test_held_weights_go_whatever_they_are(inputs: Tensor, weight: Tensor) -> None:
    held = torch.zeros_like(weight, dtype=torch.bool)
    held[:, ::4] = True
    new = prune_columns(weight, inverse_factor(moment(inputs), 0.01).upper, half, block=16, group=16, held=held)
    assert (new[held] == 0).all()
    assert int((new == 0).sum()) == weight.numel() // 2
