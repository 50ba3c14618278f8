"""The closed-form repair is the least-squares solution, and the surgeon removes what hurts least."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from pah_opt.models.covariance import damped
from pah_opt.strategies.structured.compensation import (
    absorb_linear,
    absorb_mean,
    complement,
    eliminate,
    unit_losses,
)


def correlated(count: int = 400, width: int = 12, rank: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(count, rank, generator=generator, dtype=torch.float64)
    mixed = factors @ torch.randn(rank, width, generator=generator, dtype=torch.float64)
    return mixed + 0.2 * torch.randn(count, width, generator=generator, dtype=torch.float64) + 1.5


def moments(data: Tensor) -> tuple[Tensor, Tensor]:
    return data.mean(0), torch.cov(data.T, correction=0)


def layer(width: int = 12, out: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (out, width)
    return torch.randn(shape, generator=generator, dtype=torch.float64), torch.randn(
        out, generator=generator, dtype=torch.float64
    )


def test_linear_repair_is_the_least_squares_fit_of_the_old_output() -> None:
    data, (weight, bias) = correlated(), layer()
    kept = torch.tensor([0, 2, 3, 7, 9])
    repaired = absorb_linear(weight, bias, *moments(data), kept, ridge=0.0)
    wanted = data @ weight.T + bias
    design = torch.cat([data[:, kept], torch.ones(len(data), 1, dtype=data.dtype)], dim=1)
    fitted = torch.linalg.lstsq(design, wanted).solution
    torch.testing.assert_close(repaired.weight, fitted[:-1].T)
    torch.testing.assert_close(repaired.bias, fitted[-1])


def test_linear_repair_without_bias_fits_through_the_origin() -> None:
    data, (weight, _) = correlated(), layer()
    kept = torch.tensor([1, 4, 5, 8])
    repaired = absorb_linear(weight, None, *moments(data), kept, ridge=0.0)
    fitted = torch.linalg.lstsq(data[:, kept], data @ weight.T).solution
    torch.testing.assert_close(repaired.weight, fitted.T)
    assert repaired.bias is None


def test_mean_repair_keeps_the_mean_output() -> None:
    data, (weight, bias) = correlated(), layer()
    kept = torch.tensor([0, 5, 6])
    repaired = absorb_mean(weight, bias, data.mean(0), kept)
    assert repaired.bias is not None
    after = (data[:, kept] @ repaired.weight.T + repaired.bias).mean(0)
    torch.testing.assert_close(after, (data @ weight.T + bias).mean(0))
    torch.testing.assert_close(repaired.weight, weight[:, kept])


def test_inputs_that_others_repeat_are_absorbed_without_error() -> None:
    data, (weight, bias) = correlated(rank=12), layer()
    data[:, 4] = 2.0 * data[:, 1] - data[:, 3] + 0.7
    kept = complement(torch.tensor([4]), 12)
    repaired = absorb_linear(weight, bias, *moments(data), kept, ridge=1e-9)
    after = data[:, kept] @ repaired.weight.T + repaired.bias
    torch.testing.assert_close(after, data @ weight.T + bias, atol=1e-5, rtol=1e-5)


def test_repair_keeps_the_type_of_the_layer() -> None:
    data, (weight, bias) = correlated(), layer()
    repaired = absorb_linear(weight.bfloat16(), bias.bfloat16(), *moments(data), torch.arange(6))
    assert repaired.weight.dtype == torch.bfloat16
    assert repaired.bias is not None
    assert repaired.bias.dtype == torch.bfloat16


def test_dead_inputs_do_not_break_the_repair() -> None:
    weight, bias = layer()
    zeros = torch.zeros(12, dtype=torch.float64)
    repaired = absorb_linear(weight, bias, zeros, torch.zeros(12, 12, dtype=torch.float64), torch.arange(6))
    torch.testing.assert_close(repaired.weight, weight[:, :6])


def residual(data: Tensor, weight: Tensor, kept: Tensor) -> float:
    mean, covariance = moments(data)
    repaired = absorb_linear(weight, torch.zeros(len(weight), dtype=weight.dtype), mean, covariance, kept, ridge=0.0)
    assert repaired.bias is not None
    error = data[:, kept] @ repaired.weight.T + repaired.bias - data @ weight.T
    return float(error.square().sum(1).mean())


@pytest.mark.parametrize("unit", [1, 3])
def test_losses_are_the_errors_left_after_the_best_repair(unit: int) -> None:
    data, (weight, _) = correlated(), layer()
    _, covariance = moments(data)
    found = eliminate(weight, covariance, 12 // unit - 1, unit=unit, ridge=0.0, chunk=1)
    for gone in range(1, 12 // unit):
        columns = (found.order[:gone, None] * unit + torch.arange(unit)).flatten()
        assert float(found.losses[gone - 1]) == pytest.approx(residual(data, weight, complement(columns, 12)), rel=1e-6)


@pytest.mark.parametrize("unit", [1, 2])
def test_the_first_unit_removed_is_the_best_of_all(unit: int) -> None:
    data, (weight, _) = correlated(), layer()
    units = 12 // unit
    columns = [torch.arange(u * unit, (u + 1) * unit) for u in range(units)]
    errors = [residual(data, weight, complement(gone, 12)) for gone in columns]
    found = eliminate(weight, moments(data)[1], 1, unit=unit, ridge=0.0)
    assert int(found.order[0]) == min(range(units), key=errors.__getitem__)


def test_unit_losses_are_the_errors_of_single_removals() -> None:
    data, (weight, _) = correlated(), layer()
    inverse = torch.linalg.inv(moments(data)[1])
    single = [residual(data, weight, complement(torch.tensor([i]), 12)) for i in range(12)]
    torch.testing.assert_close(unit_losses(weight, inverse, 1), torch.tensor(single, dtype=torch.float64))


def test_of_two_equal_inputs_only_one_is_removed() -> None:
    """A score that does not look at the others would find both useless."""
    data, (weight, _) = correlated(rank=12), layer()
    data[:, 6] = data[:, 2]
    weight[:, [2, 6]] = 5.0
    order = eliminate(weight, moments(data)[1], 4, chunk=4).order.tolist()
    assert len({2, 6} & set(order)) == 1


def test_chunks_find_nearly_the_same_as_single_removals() -> None:
    data, (weight, _) = correlated(2000, width=64, rank=40), layer(64, 24)
    covariance = moments(data)[1]
    exact, fast = (eliminate(weight, covariance, 32, chunk=chunk) for chunk in (1, 8))
    assert float(fast.losses[-1]) < 1.02 * float(exact.losses[-1])


def test_the_greedy_choice_is_within_twice_the_best_of_all_choices() -> None:
    data, (weight, _) = correlated(width=8), layer(8)
    found = eliminate(weight, moments(data)[1], 4, ridge=0.0, chunk=1)
    best = min(
        residual(data, weight, complement(torch.tensor(gone), 8)) for gone in itertools.combinations(range(8), 4)
    )
    assert float(found.losses[-1]) < 2 * best


def test_damping_leaves_no_zero_on_the_diagonal() -> None:
    assert torch.equal(damped(torch.zeros(3, 3), 0.1), torch.eye(3))
    torch.testing.assert_close(damped(torch.diag(torch.tensor([2.0, 4.0])), 0.5).diagonal(), torch.tensor([3.5, 5.5]))


@pytest.mark.parametrize("unit", [1, 4])
def test_dropping_what_is_gone_changes_nothing_but_the_time(unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    data = torch.randn(400, 64, generator=generator, dtype=torch.float64) @ torch.randn(
        64, 64, generator=generator, dtype=torch.float64
    )
    weight, covariance = torch.randn(9, 64, generator=generator, dtype=torch.float64), torch.cov(data.T)
    count = 64 // unit - 1
    dropped = eliminate(weight, covariance, count, unit=unit)
    monkeypatch.setattr("pah_opt.strategies.structured.compensation.DROPPED_BELOW", 0.0)
    kept = eliminate(weight, covariance, count, unit=unit)
    assert dropped.order.tolist() == kept.order.tolist()
    assert sorted(dropped.order.tolist()) == sorted(set(dropped.order.tolist()))
    torch.testing.assert_close(dropped.losses, kept.losses)
