"""Remove whole blocks: which, and what the block before them takes over."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pah_opt.errors import RecipeError
from pah_opt.models.calibration import calibration_batches, watching_inputs, watching_outputs
from pah_opt.models.surgery import remove_blocks
from pah_opt.strategies.structured.takeover import take_over
from pah_opt.strategies.structured.targets import block_shares, nearest
from pah_opt.strategies.structured.weights import mean_problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.layout import Layout
    from pah_opt.optimizer import Context
    from pah_opt.strategies.structured.config import DepthConfig, Target


def remove(model: nn.Module, config: DepthConfig, context: Context) -> nn.Module:
    """Remove blocks of ``model`` in place and return it.

    Raises:
        RecipeError: a target cannot be reached.
        DataError: calibration images cannot be used.
    """
    layout = context.adapter.layout(model)
    indices, importance = _chosen(model, layout, config, context)
    if config.target is not None:
        _require_met(model, layout, config.target, indices, context)
    repair = _repair(config, context)
    if repair != "none" and not context.planning:
        take_over(
            model, layout, indices, context, least_squares=repair == "least-squares", batch_size=config.batch_size
        )
    remove_blocks(model, layout.blocks_path, indices)
    context.adapter.sync(model)
    context.record("removed_blocks", indices)
    context.record("blocks", len(layout.blocks) - len(indices))
    asked = {"ratio", "count", "blocks", "target"}
    context.record("requested", config.model_dump(mode="json", include=asked, exclude_none=True))
    context.record("importance", importance)
    context.record("repair", repair)
    return model


def problems(model: nn.Module, config: DepthConfig, context: Context) -> list[str]:
    """Return why these blocks cannot be removed from this model."""
    layout = context.adapter.layout(model)
    total = len(layout.blocks)
    wrong = [index for index in config.blocks or () if not -total <= index < total]
    if wrong:
        return [f"blocks: there is no block {wrong[0]}; the model has {total}, counted from 0 to {total - 1}"]
    try:
        left = total - how_many(model, layout, config)
    except RecipeError as error:
        return [problem.message for problem in error.problems]
    if left < 1:
        given = f"ratio: {config.ratio}" if config.ratio else f"count: {config.count}" if config.count else "blocks"
        return [f"{given} would remove all {total} blocks; remove at most {total - 1}"]
    return mean_problems(model, config.repair, [block.mlp.fc2 for block in layout.blocks])


def how_many(model: nn.Module, layout: Layout, config: DepthConfig) -> int:
    """Return how many blocks are to be removed; for a target, blocks count as equally large.

    Raises:
        RecipeError: no number of blocks meets the target within 2 %.
    """
    total = len(layout.blocks)
    if config.target is not None:
        each = sum(block_shares(model, layout, config.target.figure)) / total
        kept = {count: 1.0 - count * each for count in range(1, total)}
        return nearest(config.target, kept, lambda count: f"{count} of {total} blocks removed")
    if config.blocks is not None:
        return len({index % total for index in config.blocks})
    return config.count if config.count is not None else max(1, round((config.ratio or 0.0) * total))


def _require_met(model: nn.Module, layout: Layout, target: Target, indices: Sequence[int], context: Context) -> None:
    """Check the target for the very blocks that go, which may be larger or smaller than others; report what stays."""
    shares = block_shares(model, layout, target.figure)
    kept = 1.0 - sum(shares[index] for index in indices)
    # On a dry run it is not known yet which blocks matter least.
    if not context.planning:
        nearest(target, {len(indices): kept}, lambda _: f"without blocks {indices}, which matter least")
    context.record("kept", {target.figure: round(kept, 4)})


def _repair(config: DepthConfig, context: Context) -> str:
    if config.repair != "auto":
        return config.repair
    return "least-squares" if context.calibration_count else "none"


def _chosen(model: nn.Module, layout: Layout, config: DepthConfig, context: Context) -> tuple[list[int], str]:
    total = len(layout.blocks)
    if config.blocks is not None:
        return sorted({index % total for index in config.blocks}), "given"
    count, importance = how_many(model, layout, config), config.importance
    if importance == "auto":
        importance = "similarity" if context.calibration_count else "even"
    if importance in {"similarity", "contiguous"} and not context.planning:
        span = 1 if importance == "similarity" else count
        turns = turning(model, layout, context, span=span, batch_size=config.batch_size)
        if importance == "similarity":
            return sorted(turns.topk(count, largest=False).indices.tolist()), importance
        start = int(turns.argmin())
        return list(range(start, start + count)), importance
    return by_position(importance, total, count), importance


def by_position(importance: str, total: int, count: int) -> list[int]:
    """Return ``count`` of ``total`` block indices: the ``first``, the ``last``, or ``even``-ly spaced ones.

    >>> by_position("even", 12, 4)
    [1, 4, 7, 10]
    """
    if importance == "first":
        return list(range(count))
    if importance == "last":
        return list(range(total - count, total))
    return [(2 * position + 1) * total // (2 * count) for position in range(count)]


@torch.no_grad()
def turning(model: nn.Module, layout: Layout, context: Context, *, span: int, batch_size: int) -> Tensor:
    """Return by which angle tokens turn over ``span`` blocks, from each block on, as a share of a half turn.

    Args:
        model: in ``eval`` mode, with values.
        layout: of ``model``.
        context: calibration images.
        span: number of neighbouring blocks.
        batch_size: images per forward pass.

    Returns:
        ``(blocks - span + 1,)``, mean over images and tokens.
    """
    starts = {block.path: model.get_submodule(block.path) for block in layout.blocks}
    last = layout.blocks[-1].path
    total = torch.zeros(len(layout.blocks) - span + 1, dtype=torch.float64, device="cpu")
    states: list[Tensor] = []

    def see(_path: str, tokens: Tensor) -> None:
        states.append(tokens.detach().float())

    images = 0
    with watching_inputs(starts, see), watching_outputs({last: starts[last]}, see):
        for pixels in calibration_batches(context.calibration, layout, batch_size, next(model.parameters())):
            states.clear()
            model(pixels)
            images += len(pixels)
            angles = [_angle(a, b) for a, b in _pairs(states, span)]
            total += len(pixels) * torch.tensor(angles, dtype=torch.float64, device="cpu")
    return total / images


def _pairs(states: Sequence[Tensor], span: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(states, states[span:], strict=False))


def _angle(before: Tensor, after: Tensor) -> float:
    cosine = nn.functional.cosine_similarity(before, after, dim=-1).clamp(-1.0, 1.0)
    return float(cosine.arccos().mean()) / math.pi
