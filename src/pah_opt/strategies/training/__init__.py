"""Training as a step of a recipe: recovery after pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.hookspecs import hookimpl
from pah_opt.strategies.training.recover import Recover

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.optimizer import AnyOptimizer

pah_opt_api_version = 1


@hookimpl
def pah_opt_optimizers() -> Iterable[AnyOptimizer]:
    """Return the strategies that train."""
    return (Recover(),)
