from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from pah_opt.models.gptq import Rounded, gptq


class Whole(NamedTuple):
    """Whole multiples of a step."""

    step: Tensor

    def nearest(self, column: Tensor) -> tuple[Tensor, Tensor]:
        found = (column / self.step).round().clamp(-8, 7)
        return found + 8, found * self.step


def whole(group: Tensor, importance: Tensor) -> Whole:
    assert importance.shape == group.shape[1:]
    return Whole(group.abs().amax(dim=1) / 7 + 1e-9)


def weight_of(rows: int = 24, columns: int = 96) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) * 0.1


def correlated(columns: int = 96, rows: int = 800) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    mixing = torch.randn(columns // 3, columns, generator=generator)
    noise = 0.05 * torch.randn(rows, columns, generator=generator)
    return torch.randn(rows, columns // 3, generator=generator) @ mixing + noise


def dense(found: Rounded[Whole], group: int) -> Tensor:
    steps = torch.stack([grid.step for grid in found.grids], dim=1).repeat_interleave(group, dim=1)
    return (found.numbers.float() - 8) * steps


@pytest.mark.parametrize("block", [32, 64, 96, 4096])
def test_how_many_columns_are_updated_at_once_does_not_matter(block: int) -> None:
    weight, inputs = weight_of(), correlated()
    moment = inputs.T @ inputs / len(inputs)
    reference = inputs @ dense(gptq(weight, moment, 32, whole, block=32), 32).T
    other = inputs @ dense(gptq(weight, moment, 32, whole, block=block), 32).T
    assert float((other - reference).norm() / reference.norm()) < 0.02


def test_outputs_err_less_than_by_rounding_each_weight_alone() -> None:
    weight, inputs = weight_of(), correlated()
    moment = inputs.T @ inputs / len(inputs)
    wanted = inputs @ weight.T
    repaired = dense(gptq(weight, moment, 32, whole), 32)
    alone = dense(gptq(weight, torch.eye(96), 32, whole), 32)
    assert float((inputs @ repaired.T - wanted).norm()) < 0.6 * float((inputs @ alone.T - wanted).norm())


def test_each_group_has_its_grid_and_zeros_stay_zero() -> None:
    weight = weight_of()
    weight[:, ::3] = 0
    inputs = correlated()
    found = gptq(weight, inputs.T @ inputs, 16, whole)
    assert len(found.grids) == 6
    assert found.numbers.shape == weight.shape
    assert (dense(found, 16)[weight == 0] == 0).all()
