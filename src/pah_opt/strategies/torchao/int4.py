"""Choosing four-bit values for a weight: the range of each group, and error correction column by column (GPTQ).

Pure functions of tensors. A group's values are ``(q - z) * s`` with ``q`` and ``z`` from 0 to 15; its range always
holds zero, so that a zero weight stays exactly zero.

References:
    Frantar et al., GPTQ, https://arxiv.org/abs/2210.17323.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = 15
SHRINKS = tuple(1.0 - 0.04 * step for step in range(13))
"""Shares of a group's full range that are tried; narrower ranges clip a few weights and round the others better."""
DAMPENING = 0.01
"""Share of the mean second moment that is added to each, as in the paper."""


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


def gptq(weight: Tensor, second_moment: Tensor, group_size: int, *, block: int = 128) -> Quantized:
    """Round column by column; what one column loses, the columns to its right make up for.

    Weights that are exactly zero stay so.

    Args:
        weight: ``(rows, columns)``.
        second_moment: of the layer's inputs, ``(columns, columns)``.
        group_size: divides ``columns``.
        block: columns that are updated at once before the rest of the matrix; rounded up to whole groups.
    """
    columns = weight.float().T.contiguous()  # a column of the weight is a row here: contiguous, and faster to walk
    kept = columns != 0
    factor = _upper_factor(second_moment.to(columns))
    importance = second_moment.diagonal().to(columns)
    block = -(-block // group_size) * group_size
    groups: list[_Group] = []
    for start in range(0, len(columns), block):
        part = slice(start, min(start + block, len(columns)))
        rest = slice(part.stop, len(columns))
        found, errors = _round_block(columns[part], kept[part], factor[part, part], importance[part], group_size)
        columns[rest] -= kept[rest] * (factor[part, rest].T @ errors)
        groups += found
    values, scales, zero_points = (torch.stack(parts, dim=1) for parts in zip(*groups, strict=True))
    return Quantized(values.to(torch.uint8), Grid(scales, zero_points))


class _Group(NamedTuple):
    """One group of every row: values ``(rows, group_size)``, scale and zero point ``(rows,)``."""

    values: Tensor
    scale: Tensor
    zero_point: Tensor


def _round_block(
    columns: Tensor, kept: Tensor, factor: Tensor, importance: Tensor, group_size: int
) -> tuple[list[_Group], Tensor]:
    """Round a block group by group; return the groups, and the columns' scaled errors, ``(columns, rows)``."""
    errors = torch.zeros_like(columns)
    groups: list[_Group] = []
    for start in range(0, len(columns), group_size):
        own = slice(start, start + group_size)
        grid = best_grid(columns[own].T.unsqueeze(1), importance[own])
        scale, zero_point = grid.scale[:, 0], grid.zero_point[:, 0]
        taken = torch.empty_like(columns[own])
        for offset, column in enumerate(range(start, start + group_size)):
            taken[offset] = ((columns[column] / scale).round() + zero_point).clamp(0, LEVELS)
            errors[column] = (columns[column] - (taken[offset] - zero_point) * scale) / factor[column, column]
            columns[column:] -= kept[column:] * torch.outer(factor[column, column:], errors[column])
        groups.append(_Group(taken.T, scale, zero_point))
    return groups, errors


def _upper_factor(second_moment: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse, with as much dampening as that needs."""
    mean = second_moment.diagonal().mean().clamp_min(torch.finfo(second_moment.dtype).tiny)
    eye = torch.eye(len(second_moment), dtype=second_moment.dtype, device=second_moment.device)
    for power in range(7):
        lower, failed = torch.linalg.cholesky_ex(second_moment + DAMPENING * 10**power * mean * eye)
        if failed:
            continue
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed and bool(torch.isfinite(upper).all()):
            return torch.as_tensor(upper)
    return eye  # no direction stands out: plain rounding
