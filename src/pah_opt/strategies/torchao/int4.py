"""Choosing four-bit values for a weight: the range of each group, and the nearest values, with repair or without.

Pure functions of tensors. A group's values are ``(q - z) * s`` with ``q`` and ``z`` from 0 to 15; its range always
holds zero, so that a zero weight stays exactly zero.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pah_opt.models.gptq import gptq

LEVELS = 15
SHRINKS = tuple(1.0 - 0.04 * step for step in range(13))
"""Shares of a group's full range that are tried; narrower ranges clip a few weights and round the others better."""


class Grid(NamedTuple):
    """The sixteen values of each group.

    Args:
        scale: ``(rows, groups)``, exactly representable in float16.
        zero_point: whole numbers from 0 to 15, ``(rows, groups)``, of the same type.
    """

    scale: Tensor
    zero_point: Tensor


def full_grid(groups: Tensor, shrink: float = 1.0) -> Grid:
    """Return grids that span each group's range, or a share of it.

    Args:
        groups: float32, ``(rows, groups, group_size)``.
        shrink: share of the range.
    """
    low = groups.amin(dim=-1).clamp_max(0) * shrink
    high = groups.amax(dim=-1).clamp_min(0) * shrink
    # Stored in float16: rounding it now lets the values be chosen for the scale that will really be used.
    scale = ((high - low) / LEVELS).half().float()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return Grid(scale, (-low / scale).round().clamp(0, LEVELS))


def rounded(groups: Tensor, grid: Grid) -> Tensor:
    """Return the nearest value of the grid for each weight, 0 to 15, float32, shaped like ``groups``."""
    zero = grid.zero_point.unsqueeze(-1)
    return ((groups / grid.scale.unsqueeze(-1)).round() + zero).clamp(0, LEVELS)


def expanded(values: Tensor, grid: Grid) -> Tensor:
    """Return what values of a grid stand for."""
    return (values - grid.zero_point.unsqueeze(-1)) * grid.scale.unsqueeze(-1)


def best_grid(groups: Tensor, importance: Tensor | None = None) -> Grid:
    """Return, for each group, the grid with the least squared error among several ranges.

    Args:
        groups: float32, ``(rows, groups, group_size)``.
        importance: weight of each column's error, ``(groups, group_size)``: the second moment of its input.
    """
    best = full_grid(groups)
    least = _error(groups, best, importance)
    for shrink in SHRINKS[1:]:
        grid = full_grid(groups, shrink)
        error = _error(groups, grid, importance)
        better = error < least
        least = torch.where(better, error, least)
        best = Grid(*(torch.where(better, new, old) for new, old in zip(grid, best, strict=True)))
    return best


def _error(groups: Tensor, grid: Grid, importance: Tensor | None) -> Tensor:
    squares = (expanded(rounded(groups, grid), grid) - groups).square()
    return (squares if importance is None else squares * importance).sum(dim=-1)


class Quantized(NamedTuple):
    """Four-bit values, ``(rows, groups, group_size)`` uint8, and their grids, ``(rows, groups)``."""

    values: Tensor
    grid: Grid


def round_nearest(weight: Tensor, group_size: int, *, search: bool) -> Quantized:
    """Round each weight by itself.

    Args:
        weight: ``(rows, columns)``.
        group_size: divides ``columns``.
        search: look for the best range of each group instead of taking all of it.
    """
    groups = weight.float().reshape(weight.shape[0], -1, group_size)
    grid = best_grid(groups) if search else full_grid(groups)
    return Quantized(rounded(groups, grid).to(torch.uint8), grid)


class _GroupGrid(NamedTuple):
    """The grid of one group of every row: scale and zero point ``(rows,)``."""

    scale: Tensor
    zero_point: Tensor

    def nearest(self, column: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest of the sixteen values, and what it stands for."""
        taken = ((column / self.scale).round() + self.zero_point).clamp(0, LEVELS)
        return taken, (taken - self.zero_point) * self.scale


def round_with_repair(weight: Tensor, second_moment: Tensor, group_size: int) -> Quantized:
    """Round column by column; what one column loses, the columns to its right make up for.

    Args:
        weight: ``(rows, columns)``.
        second_moment: of the layer's inputs, ``(columns, columns)``.
        group_size: divides ``columns``.
    """
    found = gptq(weight, second_moment, group_size, _grid_of)
    scale, zero_point = (torch.stack(parts, dim=1) for parts in zip(*found.grids, strict=True))
    return Quantized(found.numbers.reshape(*scale.shape, group_size), Grid(scale, zero_point))


def _grid_of(group: Tensor, importance: Tensor) -> _GroupGrid:
    grid = best_grid(group.unsqueeze(1), importance)
    return _GroupGrid(grid.scale[:, 0], grid.zero_point[:, 0])
