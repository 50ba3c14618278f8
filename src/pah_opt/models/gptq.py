"""Rounding column by column: what one column of a weight loses, the columns to its right make up for.

References:
    Frantar et al., GPTQ, https://arxiv.org/abs/2210.17323.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from pah_opt.models.calibration import BlockRunner, collect_inputs_covariance
from pah_opt.models.selection import inputs_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from pah_opt.optimizer import Context
    from pah_opt.splits import Split

DAMPENING = 0.01
"""Share of the mean second moment that is added to each, as in the paper."""


class GroupGrid(Protocol):
    """The values that the weights of one group may take, in every row."""

    def nearest(self, column: Tensor) -> tuple[Tensor, Tensor]:
        """Return the number of the nearest value for each row's weight, ``(rows,)``, and that value."""


G = TypeVar("G", bound=GroupGrid)


class Rounded(Generic[G]):
    """Numbers of values, ``(rows, columns)`` uint8, and the grid of each group of columns, left to right."""

    def __init__(self, numbers: Tensor, grids: list[G]) -> None:
        self.numbers, self.grids = numbers, grids


def gptq(
    weight: Tensor, second_moment: Tensor, group_size: int, grid_of: Callable[[Tensor, Tensor], G], *, block: int = 128
) -> Rounded[G]:
    """Round column by column. Weights that are exactly zero count as zero, whatever is to be made up for.

    Args:
        weight: ``(rows, columns)``.
        second_moment: of the layer's inputs, ``(columns, columns)``.
        group_size: columns that share a grid; divides ``columns``.
        grid_of: chooses the grid of a group from its weights, ``(rows, group_size)`` as they are when it is reached,
            and the importance of its columns, ``(group_size,)``.
        block: columns that are updated at once before the rest of the matrix; rounded up to whole groups.
    """
    columns = weight.float().T.contiguous()  # a column of the weight is a row here: contiguous, and faster to walk
    kept = columns != 0
    factor = _upper_factor(second_moment.to(columns))
    importance = second_moment.diagonal().to(columns)
    numbers = torch.empty(columns.shape, dtype=torch.uint8, device=columns.device)
    grids: list[G] = []
    block = -(-block // group_size) * group_size
    for start in range(0, len(columns), block):
        part = slice(start, min(start + block, len(columns)))
        errors = torch.zeros_like(columns[part])
        for first in range(part.start, part.stop, group_size):
            own = slice(first, first + group_size)
            grids.append(grid_of(columns[own].T.contiguous(), importance[own]))
            for column in range(own.start, own.stop):
                numbers[column], taken = grids[-1].nearest(columns[column])
                error = (columns[column] - taken) / factor[column, column]
                later = slice(column, part.stop)
                columns[later] -= kept[later] * torch.outer(factor[column, later], error)
                errors[column - start] = error
        rest = slice(part.stop, len(columns))
        columns[rest] -= kept[rest] * (factor[part, rest].T @ errors)
    return Rounded(numbers.T.contiguous(), grids)


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
            inverse: Tensor = upper
            return inverse
    return eye  # no direction stands out: plain rounding


@torch.no_grad()
def round_in_order(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    split: Split,
    context: Context,
    round_layer: Callable[[str, nn.Linear, Tensor], None],
    *,
    batch_size: int,
) -> None:
    """Round layers in place, first block to last, each for what the rounded blocks before it produce.

    Layers outside the blocks come last.

    Args:
        model: in ``eval`` mode.
        layers: what to round, by path.
        split: calibration images.
        context: knows the model and shows progress.
        round_layer: takes a path, its layer, and the second moment of the layer's inputs, ``(in, in)``.
        batch_size: images per forward pass.

    Raises:
        DataError: the images cannot be used, or activations are not finite.
        UnsupportedModelError: a layer did not run.
    """
    layout = context.adapter.layout(model)
    runner = BlockRunner(model, layout, split, batch_size=batch_size)
    remaining = dict(layers)
    blocks = list(enumerate(layout.blocks))
    for index, block in context.progress.track(blocks, "rounding block by block", total=len(blocks)):
        own = {path: remaining.pop(path) for path in layers if path.startswith(f"{block.path}.")}
        shared = inputs_shared(block, own)
        for leader, seen in runner.covariances(index, list(shared)).items():
            for path in shared[leader]:
                round_layer(path, own[path], seen.second_moment)
        runner.advance(index)
    if remaining:
        seen_last = collect_inputs_covariance(model, layout, list(remaining), split, batch_size=batch_size)
        for path, layer in remaining.items():
            round_layer(path, layer, seen_last[path].second_moment)
