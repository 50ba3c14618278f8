"""Token merging (ToMe) as a step of recipes: similar tokens are averaged on their way through the blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt import hookimpl
from pah_opt_tome.strategy import TokenMerging, TokenMergingConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.optimizer import AnyOptimizer

__all__ = ["TokenMerging", "TokenMergingConfig", "pah_opt_optimizers"]

pah_opt_api_version = 1


@hookimpl
def pah_opt_optimizers() -> Iterable[AnyOptimizer]:
    """Return the one strategy of this plugin."""
    return (TokenMerging(),)
