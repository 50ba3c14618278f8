r"""Refit the layers that read a narrowed embedding, so that they return what they returned before.

A reader saw :math:`x` and now sees :math:`x'`. With joint moments over calibration images, its new weights are
:math:`W' = W A`, :math:`A = \mathrm{Cov}(x, x') (\mathrm{Cov}(x') + \lambda I)^{-1}`, and its bias takes up the
difference in the mean. Blocks are refitted one after another, each on what the narrowed blocks before it produce.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pah_opt.errors import DataError
from pah_opt.models.calibration import BlockRunner, calibration_batches, watching_inputs
from pah_opt.models.covariance import Covariance
from pah_opt.models.shortfall import regression
from pah_opt.strategies.structured.compensation import RIDGE
from pah_opt.strategies.structured.weights import linear

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.layout import Block
    from pah_opt.optimizer import Context


_VECTORS_PER_INPUT = 4
"""Observed vectors per input of a layer from which on its weights are solved for."""


class Refit:
    """Refits the readers of a narrowed model to what the same layers of the dense one return.

    Args:
        dense: the model before the cut; a copy of its own.
        context: calibration images and adapter.
        batch_size: images per forward pass.

    Raises:
        DataError: the images cannot be used.
    """

    def __init__(self, dense: nn.Module, context: Context, batch_size: int) -> None:
        self.dense = dense
        self.context = context
        self.batch_size = batch_size
        self._before = self._runner(dense)

    def _runner(self, model: nn.Module) -> BlockRunner:
        layout = self.context.adapter.layout(model)
        return BlockRunner(model, layout, self.context.calibration, batch_size=self.batch_size)

    @torch.no_grad()
    def apply(self, narrow: nn.Module, *, least_squares: bool) -> None:
        """Refit every reader of ``narrow`` in place.

        Args:
            narrow: the model after channels were cut.
            least_squares: refit weights and biases; otherwise biases take up the difference in the mean only.
        """
        layout, before, after = self.context.adapter.layout(narrow), self._before, self._runner(narrow)
        blocks = list(enumerate(layout.blocks))
        for index, block in self.context.progress.track(blocks, "refitting readers", total=len(blocks)):
            for leader, readers in readers_of(block).items():
                joint = _joint(before, after, index, leader)
                for path in readers:
                    _refit(linear(self.dense, path), linear(narrow, path), joint, least_squares=least_squares)
            before.advance(index)
            after.advance(index)
        for path in layout.classifiers:
            joint = _joint_whole(self.dense, narrow, path, self.context, self.batch_size)
            _refit(linear(self.dense, path), linear(narrow, path), joint, least_squares=least_squares)


def readers_of(block: Block) -> dict[str, list[str]]:
    """Return the layers of a block that read the same tokens, under the first of them."""
    attention, mlp = block.attention, block.mlp
    projections = list(dict.fromkeys((attention.query, attention.key, attention.value)))
    return {attention.query: projections, mlp.fc1: [mlp.fc1] if mlp.gate is None else [mlp.fc1, mlp.gate]}


def _joint(before: BlockRunner, after: BlockRunner, index: int, path: str) -> Covariance:
    pairs = zip(before.inputs(index, [path]), after.inputs(index, [path]), strict=True)
    return _gathered((old[path], new[path]) for old, new in pairs)


def _joint_whole(dense: nn.Module, narrow: nn.Module, path: str, context: Context, batch_size: int) -> Covariance:
    """Return joint moments of what goes into a layer outside the blocks."""
    found = [_inputs_of(model, path, context, batch_size) for model in (dense, narrow)]
    return _gathered(zip(*found, strict=True))


def _inputs_of(model: nn.Module, path: str, context: Context, batch_size: int) -> list[Tensor]:
    seen: list[Tensor] = []
    layout, like = context.adapter.layout(model), next(model.parameters())
    with watching_inputs({path: model.get_submodule(path)}, lambda _path, tokens: seen.append(tokens)):
        for pixels in calibration_batches(context.calibration, layout, batch_size, like):
            model(pixels)
    return seen


def _gathered(pairs: Iterable[tuple[Tensor, Tensor]]) -> Covariance:
    joint: Covariance | None = None
    for old, new in pairs:
        joint = joint or Covariance(old.shape[-1] + new.shape[-1], old.device)
        joint.update(torch.cat([old, new], dim=-1))
    if joint is None:
        raise DataError("there are no calibration images; pass data with at least one training image")
    return joint


def _refit(old: nn.Linear, new: nn.Linear, joint: Covariance, *, least_squares: bool) -> None:
    width = old.in_features
    bias: Tensor | None = new.bias
    mean, weight = joint.mean, new.weight.to(joint.mean.dtype)
    # A layer without bias cannot take up a difference in the mean: its weights have to, as far as they can.
    moment = joint.second_moment if bias is None else joint.matrix
    # A classifier sees one vector per image: too few to solve for its weights, enough for the mean.
    if least_squares and joint.count >= _VECTORS_PER_INPUT * new.in_features:
        mapping = regression(moment[width:, width:], moment[:width, width:], RIDGE)
        weight = old.weight.to(mean.dtype) @ mapping
        new.weight.copy_(weight)
    if bias is not None:
        shift = old.weight.to(mean.dtype) @ mean[:width] - weight @ mean[width:]
        bias.copy_(old.bias.to(mean.dtype) + shift)
