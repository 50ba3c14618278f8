r"""Let the feed-forward network of a block take over for the blocks after it that are about to be removed.

With :math:`h` the hidden units of the block before and :math:`\Delta` what the removed blocks added to the tokens, the
block adds the linear regression of :math:`\Delta` on :math:`h` as well; see :mod:`pah_opt.models.shortfall`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.models.calibration import BlockRunner
from pah_opt.models.precision import worked_on_in_float32
from pah_opt.models.shortfall import Shortfall
from pah_opt.strategies.structured.compensation import RIDGE
from pah_opt.strategies.structured.weights import linear

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from pah_opt.layout import Layout
    from pah_opt.optimizer import Context


@torch.no_grad()
def take_over(
    model: nn.Module,
    layout: Layout,
    removed: Sequence[int],
    context: Context,
    *,
    least_squares: bool,
    batch_size: int,
) -> None:
    """Change the blocks before removed ones, in place; blocks removed at the very beginning have nobody before them.

    Args:
        model: in ``eval`` mode, all blocks still there.
        layout: of ``model``.
        removed: indices of the blocks that will go.
        context: calibration images.
        least_squares: absorb the linear part; otherwise the mean only.
        batch_size: images per forward pass.

    Raises:
        DataError: the images cannot be used.
    """
    with worked_on_in_float32(model) as work:
        runner = BlockRunner(work, layout, context.calibration, batch_size=batch_size)
        for index, run in runs(removed, len(layout.blocks)):
            if index >= 0 and run:
                _absorb(work, layout, runner, index, run, least_squares=least_squares)
            if index >= 0:
                runner.advance(index)


def runs(removed: Sequence[int], total: int) -> list[tuple[int, list[int]]]:
    """Pair every block that stays with the removed ones right after it; -1 stands for the beginning.

    >>> runs([0, 2, 3], 5)
    [(-1, [0]), (1, [2, 3]), (4, [])]
    """
    pairs: list[tuple[int, list[int]]] = [(-1, [])]
    for index in range(total):
        if index in removed:
            pairs[-1][1].append(index)
        else:
            pairs.append((index, []))
    return pairs


def _absorb(
    model: nn.Module, layout: Layout, runner: BlockRunner, index: int, run: Sequence[int], *, least_squares: bool
) -> None:
    mlp, middle = layout.blocks[index].mlp, layout.blocks[index].norms[1]
    shortfall = Shortfall(linear(model, mlp.fc2))
    for position, (seen, after) in enumerate(runner.passes(index, (mlp.fc2, middle))):
        final = runner.run_from(after, position, run)
        shortfall.update(seen[mlp.fc2], added=after - seen[middle], missing=final - after)
    shortfall.make_up(RIDGE, linear=least_squares)
