"""Visit chosen linear layers in order, each observed on what the already changed layers before it produce."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.errors import DataError
from pah_opt.models.calibration import BlockRunner, collect_inputs_covariance, evenly_spaced, watching_inputs
from pah_opt.models.selection import inputs_shared
from pah_opt.strategies.unstructured.moments import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import Tensor, nn

    from pah_opt.layout import Block, Layout
    from pah_opt.optimizer import Context
    from pah_opt.splits import Split
    from pah_opt.strategies.unstructured.config import Observation

    Change = Callable[[Mapping[str, nn.Linear], Seen], None]


@torch.no_grad()
def change_in_order(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    context: Context,
    seeing: Observation,
    change: Change,
    *,
    paired: bool = True,
) -> None:
    """Call ``change(layers that share an input, what goes into them)`` through the model, first layer to last.

    Within a block too, a layer is observed after those before it were changed. Layers outside the blocks
    (classifiers) come last, without errors.

    Args:
        model: in ``eval`` mode.
        layers: the chosen layers, by path.
        context: has the calibration images.
        seeing: how many images, and how many at once.
        change: changes the layers in place.
        paired: observe too how far inputs are from what they are in the model as it was given.

    Raises:
        DataError: the images cannot be used, or activations are not finite.
        UnsupportedModelError: a layer did not run.
    """
    layout, split = context.adapter.layout(model), _images(context, seeing)
    walk = _Walk(model, layout, split, seeing.batch_size, paired=paired)
    blocks = list(enumerate(layout.blocks))
    for index, block in context.progress.track(blocks, "pruning block by block", total=len(blocks)):
        own = inputs_shared(block, _within(block, layers))
        for leader, seen in walk.through(index, list(own)):
            change({path: layers[path] for path in own[leader]}, seen)
    outside = _outside(layout, layers)
    if outside:
        found = collect_inputs_covariance(model, layout, outside, split, batch_size=seeing.batch_size)
        for path, inputs in found.items():
            change({path: layers[path]}, Seen(inputs))


class _Walk:
    """Runs block after block on two streams: as the layers now are, and as they were given."""

    def __init__(self, model: nn.Module, layout: Layout, split: Split, batch_size: int, *, paired: bool) -> None:
        self.model = model
        self.now = BlockRunner(model, layout, split, batch_size=batch_size)
        self.dense = BlockRunner(model, layout, split, batch_size=batch_size) if paired else None

    def through(self, index: int, leaders: list[str]) -> Iterator[tuple[str, Seen]]:
        """Yield each layer of block ``index`` and its inputs; the caller changes it before taking the next."""
        dense = self._dense_inputs(index, leaders)
        for leader in leaders:
            yield leader, self._observe(index, leader, dense.pop(leader, None))
        self.now.advance(index)

    def _dense_inputs(self, index: int, leaders: list[str]) -> dict[str, list[Tensor]]:
        """Run the still unchanged block on the dense stream; return what went into each layer, batch by batch."""
        kept: dict[str, list[Tensor]] = {leader: [] for leader in leaders}
        if self.dense is None:
            return {}
        modules = {leader: self.model.get_submodule(leader) for leader in leaders}
        with watching_inputs(modules, lambda path, inputs: kept[path].append(inputs)):
            self.dense.advance(index)
        return kept

    def _observe(self, index: int, leader: str, dense: list[Tensor] | None) -> Seen:
        seen: Seen | None = None
        for position, batch in enumerate(self.now.inputs(index, [leader])):
            inputs = batch[leader]
            seen = seen or Seen.start(inputs, paired=dense is not None)
            seen.update(inputs, None if dense is None else dense[position])
        if seen is None:
            raise DataError("there are no calibration images; pass data with at least one training image")
        return seen.checked(leader)


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
