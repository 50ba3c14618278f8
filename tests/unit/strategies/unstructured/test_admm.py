from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pah_opt.errors import DataError
from pah_opt.strategies.unstructured.admm import System, prune_jointly
from pah_opt.strategies.unstructured.config import NmPattern
from pah_opt.strategies.unstructured.masking import group_mask, zero_count
from pah_opt.strategies.unstructured.obs import inverse_factor, prune_columns
from pah_opt.strategies.unstructured.prune import smallest_mask
from pah_opt.strategies.unstructured.sparsegpt import drop_pattern


@pytest.fixture
def hessian() -> Tensor:
    """Of correlated inputs: with independent ones there would be nothing to make up with."""
    torch.manual_seed(0)
    inputs = torch.randn(500, 12) @ torch.randn(12, 32) + 0.3 * torch.randn(500, 32)
    return inputs.T @ inputs / len(inputs)


@pytest.fixture
def weight() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(24, 32)


def loss(new: Tensor, old: Tensor, hessian: Tensor) -> float:
    change = new - old
    return float((change @ hessian * change).sum())


def share_of(zeros: float) -> object:
    return lambda worth, share: smallest_mask(worth, zero_count(share * zeros, worth.numel()))


def solved(weight: Tensor, hessian: Tensor, drop: object, held: Tensor | None = None, rounds: int = 60) -> Tensor:
    held = torch.zeros_like(weight, dtype=torch.bool) if held is None else held
    return prune_jointly(weight, System.of(hessian, 0.01), drop, rounds=rounds, held=held)  # type: ignore[arg-type]


@pytest.mark.parametrize("zeros", [0.3, 0.5, 0.7, 0.9])
def test_it_loses_less_than_column_by_column_at_the_same_zeros(weight: Tensor, hessian: Tensor, zeros: float) -> None:
    upper = inverse_factor(hessian, 0.01).upper
    count = zero_count(zeros, weight.numel())
    columns = prune_columns(weight, upper, lambda scores, _: smallest_mask(scores, count), block=32, group=32)
    new = solved(weight, hessian, share_of(zeros))
    assert int((new == 0).sum()) == int((columns == 0).sum()) == count
    assert loss(new, weight, hessian) < 0.9 * loss(columns, weight, hessian)


def test_the_weights_that_stay_are_the_least_squares_solution_for_their_places(weight: Tensor, hessian: Tensor) -> None:
    new = solved(weight, hessian, share_of(0.5), rounds=400)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(32)
    for row, old in zip(new, weight, strict=True):
        kept = row != 0
        best = torch.linalg.solve(damped[kept][:, kept], (damped @ old)[kept])
        assert torch.allclose(row[kept], best, atol=0.02 * float(old.abs().max()))


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "4:8"])
def test_patterns_hold_and_lose_less_than_column_by_column(weight: Tensor, hessian: Tensor, pattern: str) -> None:
    nm = NmPattern.parse(pattern)
    new = solved(weight, hessian, drop_pattern(nm))
    assert ((new.reshape(-1, nm.group) != 0).sum(dim=1) == nm.kept).all()
    upper = inverse_factor(hessian, 0.01).upper
    columns = prune_columns(
        weight, upper, lambda scores, _: group_mask(scores, nm.kept, nm.group), block=16, group=nm.group
    )
    assert loss(new, weight, hessian) < loss(columns, weight, hessian)


def test_held_weights_go_whatever_they_are_and_count(weight: Tensor, hessian: Tensor) -> None:
    held = torch.zeros_like(weight, dtype=torch.bool)
    held[:, ::4] = True
    new = solved(weight, hessian, share_of(0.5), held)
    assert (new[held] == 0).all()
    assert int((new == 0).sum()) == weight.numel() // 2


def test_the_given_tensors_are_left_alone(weight: Tensor, hessian: Tensor) -> None:
    before = weight.clone(), hessian.clone()
    solved(weight, hessian, share_of(0.5))
    assert torch.equal(weight, before[0])
    assert torch.equal(hessian, before[1])


@pytest.mark.parametrize("hessian", [torch.zeros(32, 32), torch.diag((torch.arange(32) % 2).float())])
def test_inputs_that_are_always_zero_are_no_obstacle(weight: Tensor, hessian: Tensor) -> None:
    assert torch.isfinite(solved(weight, hessian, share_of(0.5))).all()


def test_a_hessian_that_is_none_is_refused_with_the_remedy(weight: Tensor) -> None:
    with pytest.raises(DataError, match="calibration images"):
        solved(weight, torch.full((32, 32), torch.nan), share_of(0.5))
