"""Visit chosen linear layers block by block, each observed on what the already changed layers before it produce."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.errors import DataError
from pah_opt.models.calibration import BlockRunner, collect_inputs_covariance, evenly_spaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import nn

    from pah_opt.layout import Block, Layout
    from pah_opt.models.calibration import Covariance
    from pah_opt.optimizer import Context
    from pah_opt.splits import Split
    from pah_opt.strategies.unstructured.config import Observation

    Change = Callable[[Mapping[str, nn.Linear], Covariance], None]


def inputs_shared(block: Block, paths: Iterable[str]) -> dict[str, list[str]]:
    """Group a block's layers by the input they share: the first path of each group, and all of them.

    Query, key and value read the same tokens, and so do a gate and its partner: they are observed once.
    """
    attention, mlp = block.attention, block.mlp
    leaders = {attention.key: attention.query, attention.value: attention.query, mlp.gate: mlp.fc1}
    grouped: dict[str, list[str]] = {}
    for path in paths:
        grouped.setdefault(leaders.get(path, path), []).append(path)
    return {members[0]: members for members in grouped.values()}


@torch.no_grad()
def change_blockwise(
    model: nn.Module, layers: Mapping[str, nn.Linear], context: Context, seeing: Observation, change: Change
) -> None:
    """Call ``change(layers that share an input, what goes into them)`` through the model, first block to last.

    Layers outside the blocks (classifiers) come last, observed on the model as it is by then.

    Args:
        model: in ``eval`` mode.
        layers: the chosen layers, by path.
        context: has the calibration images.
        seeing: how many images, and how many at once.
        change: changes the layers in place.

    Raises:
        DataError: the images cannot be used, or activations are not finite.
        UnsupportedModelError: a layer did not run.
    """
    layout, split = context.adapter.layout(model), _images(context, seeing)
    runner = BlockRunner(model, layout, split, batch_size=seeing.batch_size)
    blocks = list(enumerate(layout.blocks))
    for index, block in context.progress.track(blocks, "pruning block by block", total=len(blocks)):
        own = inputs_shared(block, _within(block, layers))
        for leader, seen in runner.covariances(index, list(own)).items():
            change({path: layers[path] for path in own[leader]}, seen)
        runner.advance(index)
    outside = _outside(layout, layers)
    if outside:
        for path, seen in collect_inputs_covariance(
            model, layout, outside, split, batch_size=seeing.batch_size, progress=context.progress
        ).items():
            change({path: layers[path]}, seen)


def _images(context: Context, seeing: Observation) -> Split:
    if context.calibration is None or len(context.calibration) == 0:
        raise DataError("there are no calibration images; pass data with at least one training image")
    return evenly_spaced(context.calibration, seeing.images)


def _within(block: Block, layers: Iterable[str]) -> list[str]:
    return [path for path in layers if path.startswith(f"{block.path}.")]


def _outside(layout: Layout, layers: Iterable[str]) -> list[str]:
    paths = list(layers)
    inside = {path for block in layout.blocks for path in _within(block, paths)}
    return [path for path in paths if path not in inside]
