r"""Let the feed-forward network of a block take over for the blocks after it that are about to be removed.

With :math:`h` the hidden units of the block before and :math:`\Delta` what the removed blocks added to the tokens, the
block adds the linear regression of :math:`\Delta` on :math:`h` as well. A factor on the network's output (LayerScale)
is found from the data: what the block adds is the factor times what ``fc2`` returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pah_opt.models.calibration import BlockRunner, watching_inputs, watching_outputs
from pah_opt.models.covariance import Covariance
from pah_opt.strategies.structured.compensation import RIDGE, damped
from pah_opt.strategies.structured.weights import linear

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.layout import Block, Layout
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
    runner = BlockRunner(model, layout, context.calibration, batch_size=batch_size)
    for index, run in runs(removed, len(layout.blocks)):
        if index >= 0 and run:
            _absorb(model, layout, runner, index, run, least_squares=least_squares)
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
    block = layout.blocks[index]
    fc2 = linear(model, block.mlp.fc2)
    joint, scale = _observe(model, layout, runner, index, run)
    width = fc2.in_features
    covariance, mean = joint.matrix, joint.mean
    missing = mean[width:]
    if least_squares:
        solved = torch.linalg.solve(damped(covariance[:width, :width], RIDGE), covariance[:width, width:]).T
        missing = missing - solved @ mean[:width]
        fc2.weight += (solved / scale[:, None]).to(fc2.weight.dtype)
    bias: Tensor | None = fc2.bias
    if bias is not None:
        bias += (missing / scale).to(bias.dtype)


def _observe(
    model: nn.Module, layout: Layout, runner: BlockRunner, index: int, run: Sequence[int]
) -> tuple[Covariance, Tensor]:
    """Return moments of hidden units and of what the removed blocks add, side by side, and the factor on the output."""
    block = layout.blocks[index]
    fc2 = linear(model, block.mlp.fc2)
    joint = Covariance(fc2.in_features + fc2.out_features, fc2.weight.device)
    products = torch.zeros(2, fc2.out_features, dtype=joint.mean.dtype, device=fc2.weight.device)
    for position in range(len(runner.hidden)):
        seen, after = _watched(model, block, runner, index, position)
        final = runner.run_from(after, position, run)
        joint.update(torch.cat([seen["hidden"], final - after], dim=-1))
        added, returned = (t.flatten(0, -2).to(products.dtype) for t in (after - seen["middle"], seen["returned"]))
        products += torch.stack([(added * returned).sum(dim=0), returned.square().sum(dim=0)])
    scale = products[0] / products[1].clamp_min(torch.finfo(products.dtype).tiny)
    return joint, torch.where(scale.abs() > 1e-8, scale, torch.ones_like(scale))


def _watched(
    model: nn.Module, block: Block, runner: BlockRunner, index: int, position: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Run one block on one cached batch; returns hidden units, what fc2 returned, the tokens before, and the output."""
    seen: dict[str, Tensor] = {}
    names = {block.mlp.fc2: "hidden", block.norms[1]: "middle"}

    def see(path: str, tensor: Tensor) -> None:
        seen[names[path]] = tensor

    def see_output(_path: str, tensor: Tensor) -> None:
        seen["returned"] = tensor

    fc2 = model.get_submodule(block.mlp.fc2)
    watched = {path: model.get_submodule(path) for path in names}
    with watching_inputs(watched, see), watching_outputs({block.mlp.fc2: fc2}, see_output):
        after = runner.run_from(runner.hidden[position], position, [index])
    return seen, after
