"""Structured pruning from beginning to end: allocate widths, then choose, repair and cut block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.models.calibration import BlockRunner
from pah_opt.strategies.structured import plan, record
from pah_opt.strategies.structured.allocation import Allocator
from pah_opt.strategies.structured.cutting import Cutter, concentrate_heads, repair_reader
from pah_opt.strategies.structured.importance import Judge
from pah_opt.strategies.structured.observation import Moments
from pah_opt.strategies.structured.sizes import Sizes, shapes_of
from pah_opt.strategies.structured.weights import consumer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from pah_opt.layout import Block, Layout
    from pah_opt.optimizer import Context
    from pah_opt.strategies.structured.config import StructuredConfig
    from pah_opt.strategies.structured.plan import Method
    from pah_opt.strategies.structured.sizes import BlockShape, Kind, Shapes


def prune(model: nn.Module, config: StructuredConfig, context: Context) -> nn.Module:
    """Make every block of ``model`` narrower, in place.

    Args:
        model: a private copy in ``eval`` mode; on a dry run on the ``meta`` device.
        config: what to remove and how.
        context: adapter, calibration images, alignment, seed.

    Returns:
        ``model``.

    Raises:
        RecipeError: a share or a target cannot be reached.
        DataError: calibration images cannot be used.
        UnsupportedModelError: a part is in no state to be cut.
    """
    layout = context.adapter.layout(model)
    allocator = Allocator.of(Sizes.of(model, layout), plan.widths(config, context))
    method = plan.method(config, context)
    cutter = Cutter(model, context.adapter, layout)
    for request in plan.stages(config, layout):
        layout = context.adapter.layout(model)
        judge = Judge(model, layout, method, config, context)
        allocator = allocator.below(shapes_of(layout))
        shapes = allocator.allocate(request, judge.rankings(request) if request.scope != "layer" else ())
        _Stage(model, layout, method, judge, cutter).narrow(shapes, context, config.batch_size)
        context.adapter.sync(model)
    shapes = shapes_of(context.adapter.layout(model))
    record.write(context, config, method, allocator=allocator, shapes=shapes, cut_by=cutter.method)
    return model


class _Stage:
    """Brings every block to its new widths, first to last."""

    def __init__(self, model: nn.Module, layout: Layout, method: Method, judge: Judge, cutter: Cutter) -> None:
        self.model = model
        self.layout = layout
        self.method = method
        self.judge = judge
        self.cutter = cutter
        self.runner: BlockRunner | None = None

    def narrow(self, shapes: Shapes, context: Context, batch_size: int) -> None:
        if self.method.observes:
            # Reads and checks every calibration image before the first cut.
            self.runner = BlockRunner(self.model, self.layout, context.calibration, batch_size=batch_size)
        pairs = list(zip(self.layout.blocks, shapes, strict=True))
        for index, (block, shape) in enumerate(context.progress.track(pairs, "pruning blocks", total=len(pairs))):
            self._narrow_attention(index, block, shape)
            self._narrow_mlp(index, block, shape)
            if self.runner is not None:
                self.runner.advance(index)

    def _narrow_attention(self, index: int, block: Block, shape: BlockShape) -> None:
        attention = block.attention
        narrower = (shape.head_dim, shape.value_dim) != (attention.head_dim, attention.value_dim)
        if shape.heads == attention.num_heads and not narrower:
            return
        seen = self._observe(index, [attention.query, attention.output] if narrower else [attention.output])
        joined = seen.get(attention.output)
        if shape.heads < attention.num_heads:
            columns = self._remove(block, "heads", shape.heads, joined)
            joined = None if joined is None else joined.at(columns)
        if narrower:
            cut = _now(block, shape.heads)
            inputs = seen.get(attention.query)
            known = (inputs, joined) if inputs is not None and joined is not None else None
            if not self.method.planning:
                concentrate_heads(self.model, cut.attention, shape.head_dim, shape.value_dim, known)
            self.cutter.head_dims(cut.attention, shape.head_dim, shape.value_dim)

    def _narrow_mlp(self, index: int, block: Block, shape: BlockShape) -> None:
        if shape.mlp < block.mlp.width:
            self._remove(block, "mlp", shape.mlp, self._observe(index, [block.mlp.fc2]).get(block.mlp.fc2))

    def _remove(self, block: Block, kind: Kind, count: int, seen: Moments | None) -> Tensor:
        """Choose ``count`` units to keep, repair their reader, cut the rest; returns the inputs kept of the reader."""
        kept = self.judge.keep(block, kind, count, seen)
        path, unit = consumer(block, kind)
        columns = (kept[:, None] * unit + torch.arange(unit, device=kept.device)).flatten()
        if seen is not None and self.method.repair != "none":
            repair_reader(self.model, path, seen, columns, self.method.repair)
        if kind == "heads":
            self.cutter.heads(block.attention, kept.tolist())
        else:
            self.cutter.units(block.mlp, kept.tolist())
        return columns

    def _observe(self, index: int, paths: Sequence[str]) -> dict[str, Moments]:
        if self.runner is None:
            return {}
        weights = self.judge.token_weights(paths)
        found = self.runner.covariances(index, paths, weights)
        return {path: Moments.of(seen) for path, seen in found.items()}


def _now(block: Block, heads: int) -> Block:
    from dataclasses import replace

    return replace(block, attention=replace(block.attention, num_heads=heads))
