"""Make a model run faster as it is: compile it, feed it smaller images, cast it, fuse its attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.hookspecs import hookimpl
from pah_opt.strategies.runtime.attention import FusedAttention, FusedQkv
from pah_opt.strategies.runtime.cast import Cast
from pah_opt.strategies.runtime.compile import Compile
from pah_opt.strategies.runtime.input_size import InputSize

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.optimizer import AnyOptimizer

pah_opt_api_version = 1


@hookimpl
def pah_opt_optimizers() -> Iterable[AnyOptimizer]:
    """Return the strategies that change how a model runs, and not what it has learned."""
    return (Compile(), InputSize(), Cast(), FusedAttention(), FusedQkv())
