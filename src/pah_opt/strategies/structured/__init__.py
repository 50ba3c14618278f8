"""Plugin: strategies that make a model narrower or shallower, so that it is faster on any hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.optimizer import AnyOptimizer


@hookimpl
def pah_opt_optimizers() -> Iterable[AnyOptimizer]:
    """Return the strategies; nothing here imports torch before a step runs."""
    from pah_opt.strategies.structured.strategy import DepthPruning, StructuredPruning, WidthPruning

    return (StructuredPruning(), DepthPruning(), WidthPruning())
