"""Quantization of linear layers with bitsandbytes: the ``bitsandbytes`` strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.hookspecs import hookimpl
from pah_opt.strategies.bitsandbytes.config import BitsandbytesConfig
from pah_opt.strategies.bitsandbytes.strategy import Bitsandbytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.optimizer import AnyOptimizer

pah_opt_api_version = 1

__all__ = ["Bitsandbytes", "BitsandbytesConfig"]


@hookimpl
def pah_opt_optimizers() -> Iterable[AnyOptimizer]:
    """Register the strategy."""
    return [Bitsandbytes()]
