"""OpenVINO as a step of recipes: the graph runs there and still answers like the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt import hookimpl
from pah_opt_openvino.strategy import Nncf, OpenVino

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.optimizer import AnyOptimizer

__all__ = ["Nncf", "OpenVino", "pah_opt_optimizers"]

pah_opt_api_version = 1


@hookimpl
def pah_opt_optimizers() -> Iterable[AnyOptimizer]:
    """Return the runtime, and its int8 form."""
    return (OpenVino(), Nncf())
