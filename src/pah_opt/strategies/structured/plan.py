"""From a config to what is done: the method, the allowed widths, the stages, and what is wrong with it for a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, cast

from pah_opt.errors import RecipeError
from pah_opt.strategies.structured.allocation import Allocator, Request
from pah_opt.strategies.structured.config import FROM_DATA
from pah_opt.strategies.structured.sizes import Figure, Kind, Sizes, Widths
from pah_opt.strategies.structured.weights import mean_problems

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from pah_opt.layout import Layout
    from pah_opt.optimizer import Context
    from pah_opt.strategies.structured.config import StructuredConfig


@dataclass(frozen=True)
class Method:
    """How units are judged and repaired, with nothing left to decide.

    Args:
        importance: any of the config's, except ``auto``.
        repair: ``none``, ``mean`` or ``least-squares``.
        focused: tokens and outputs count by how much the logits depend on them.
        planning: a dry run: no values are looked at.
    """

    importance: str
    repair: str
    focused: bool = False
    planning: bool = False

    @property
    def observes(self) -> bool:
        """Whether activations are observed block by block."""
        return not self.planning and (self.importance in FROM_DATA or self.repair != "none")


def method(config: StructuredConfig, context: Context) -> Method:
    """Decide what ``auto`` stands for."""
    seen = context.calibration_count > 0
    importance = ("surgeon" if seen else "magnitude") if config.importance == "auto" else config.importance
    repair = ("least-squares" if seen else "none") if config.repair == "auto" else config.repair
    return Method(importance, repair, config.focus == "logits" and seen, context.planning)


def widths(config: StructuredConfig, context: Context) -> Widths:
    """Return which widths are allowed."""
    return Widths(context.align if config.align is None else config.align, config.min_mlp_width)


def request(config: StructuredConfig, layout: Layout, progress: float = 1.0) -> Request:
    """Return what is to be removed once a share ``progress`` of the way is gone."""
    shares = {cast("Kind", kind): share for kind, share in config.proportions.items()}
    if config.target is None:
        partly = {kind: share * progress for kind, share in shares.items()}
        return Request(partly, scope=config.scope, blocks=_own_shares(config, layout, partly, progress))
    keep = 1.0 - (1.0 - config.target.share) * progress
    return Request(shares, cast("Figure", config.target.figure), keep, config.scope)


def _own_shares(
    config: StructuredConfig, layout: Layout, shares: Mapping[Kind, float], progress: float
) -> list[dict[Kind, float]]:
    """Return the shares of each block where some have their own, else nothing."""
    if not any(config.per_block.values()):
        return []
    blocks = [dict(shares) for _ in layout.blocks]
    for kind, patterns in config.per_block.items():
        for pattern, share in patterns.items():
            for index in _matching(pattern, layout):
                blocks[index][cast("Kind", kind)] = share * progress
    return blocks


def _matching(pattern: str, layout: Layout) -> list[int]:
    """Return the blocks whose path a pattern matches, or what every path inside them begins with."""
    return [
        index
        for index, block in enumerate(layout.blocks)
        if fnmatchcase(block.path, pattern) or fnmatchcase(f"{block.path}.", pattern)
    ]


def stages(config: StructuredConfig, layout: Layout) -> Iterator[Request]:
    """Yield what is to be gone after each iterative step."""
    for step in range(1, config.iterative_steps + 1):
        yield request(config, layout, step / config.iterative_steps)


def problems(model: nn.Module, config: StructuredConfig, context: Context) -> list[str]:
    """Return why this config cannot be carried out on this model; looks at shapes only."""
    layout = context.adapter.layout(model)
    readers = [path for block in layout.blocks for path in (block.attention.output, block.mlp.fc2)]
    found = [*_unmatched(config, layout), *mean_problems(model, config.repair, readers)]
    if found:
        return found
    allocator = Allocator.of(Sizes.of(model, layout), widths(config, context))
    wanted = request(config, layout)
    if wanted.figure is None:
        return _share_problems(allocator, wanted)
    try:
        allocator.allocate(wanted)
    except RecipeError as error:
        return [problem.message for problem in error.problems]
    return []


def _unmatched(config: StructuredConfig, layout: Layout) -> list[str]:
    first = layout.blocks[0].path
    return [
        f"with.{kind}_per_block: {pattern!r} matches no block; allowed are glob patterns over block paths such as "
        f"'{first}.*'"
        for kind, patterns in config.per_block.items()
        for pattern in patterns
        if not _matching(pattern, layout)
    ]


def _share_problems(allocator: Allocator, wanted: Request) -> list[str]:
    found = []
    for kind in wanted.kinds:
        narrowed = allocator.allocate(replace(wanted.of(kind), scope="layer"))
        for index, (dense, cut) in enumerate(zip(allocator.dense, narrowed, strict=True)):
            share = wanted.share(kind, index)
            count, kept = dense.count(kind), dense.count(kind) * (1.0 - share)
            multiple = allocator.widths.multiple(kind, dense)
            if kept < 0.5:
                what = f"all {count} {_NAMES[kind]} of block {index}"
                found.append(f"{kind}: {share} would remove {what}; at most {1 - 1 / count:.3g} leaves one")
            elif share and cut.count(kind) == count:
                found.append(
                    f"{kind}: {share} can remove nothing from the {count} {_NAMES[kind]} of block {index}: what stays "
                    f"must be a multiple of {multiple} for widths that are multiples of {allocator.widths.align}, "
                    f"at least {allocator.widths.least(kind, dense)}; set align: 1 or leave {kind} out"
                )
            else:
                continue
            break
    return found


_NAMES = {"heads": "heads", "head_dims": "dimensions of a head", "mlp": "hidden units"}
