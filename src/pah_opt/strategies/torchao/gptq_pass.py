"""GPTQ over a whole model: block by block, each layer rounded for what the already rounded blocks before it produce."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.models.calibration import BlockRunner, collect_inputs_covariance
from pah_opt.strategies.torchao.convert import quantize_int4

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

    from pah_opt.layout import Block
    from pah_opt.optimizer import Context
    from pah_opt.splits import Split


@torch.no_grad()
def quantize_blockwise(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    split: Split,
    context: Context,
    *,
    group_size: int,
    batch_size: int,
) -> None:
    """Quantize layers to four bits in place, first block to last; layers outside the blocks come after them.

    Args:
        model: in ``eval`` mode.
        layers: what to quantize, by path.
        split: calibration images.
        context: knows the model and shows progress.
        group_size: neighbours that share a scale.
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
                quantize_int4(own[path], group_size, second_moment=seen.second_moment)
        runner.advance(index)
    if remaining:
        seen_last = collect_inputs_covariance(model, layout, list(remaining), split, batch_size=batch_size)
        for path, layer in remaining.items():
            quantize_int4(layer, group_size, second_moment=seen_last[path].second_moment)


def inputs_shared(block: Block, paths: Iterable[str]) -> dict[str, list[str]]:
    """Group a block's layers by the input they share, first path to all of them: query, key and value read the same."""
    attention, mlp = block.attention, block.mlp
    leaders = {attention.key: attention.query, attention.value: attention.query, mlp.gate: mlp.fc1}
    grouped: dict[str, list[str]] = {}
    for path in paths:
        grouped.setdefault(leaders.get(path, path), []).append(path)
    return {members[0]: members for members in grouped.values()}
