"""Steps that win accuracy back: by training, or in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.hookspecs import hookimpl
from pah_opt.strategies.training.reconstruct import Reconstruct
from pah_opt.strategies.training.recover import Recover

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.optimizer import AnyOptimizer

pah_opt_api_version = 1


@hookimpl
def pah_opt_optimizers() -> Iterable[AnyOptimizer]:
    """Return the strategies of this package."""
    return (Reconstruct(), Recover())
