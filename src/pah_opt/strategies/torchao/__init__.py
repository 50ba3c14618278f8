"""Quantization of linear layers with torchao: the ``torchao`` strategy, and a scan of each layer's sensitivity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pah_opt.hookspecs import hookimpl
from pah_opt.strategies.torchao.config import Guard, TorchaoConfig
from pah_opt.strategies.torchao.strategy import Torchao

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.optimizer import AnyOptimizer
    from pah_opt.strategies.torchao.scan import LayerSensitivity, sensitivity

pah_opt_api_version = 1

__all__ = ["Guard", "LayerSensitivity", "Torchao", "TorchaoConfig", "sensitivity"]


@hookimpl
def pah_opt_optimizers() -> Iterable[AnyOptimizer]:
    """Register the strategy."""
    return [Torchao()]


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use (PEP 562)."""
    if name in ("LayerSensitivity", "sensitivity"):
        import importlib

        module = importlib.import_module("pah_opt.strategies.torchao.scan")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
