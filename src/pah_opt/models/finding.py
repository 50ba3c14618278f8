"""Find the ModelAdapter that knows a model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pah_opt.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from pah_opt.layout import ModelAdapter

_LOG = logging.getLogger(__name__)
_ADDING = "to add a family, return a ModelAdapter from the hook pah_opt_model_adapters (docs: writing a plugin)"


def find_adapter(model: nn.Module, adapters: Iterable[ModelAdapter]) -> ModelAdapter:
    """Return the first adapter that knows ``model``.

    Args:
        model: the model, on any device.
        adapters: to choose from, such as ``registry.adapters``.

    Raises:
        UnsupportedModelError: none does; names the model's type, what is supported, and how to add a family.
    """
    known = tuple(adapters)
    for adapter in known:
        if _matches(adapter, model):
            return adapter
    supported = ", ".join(adapter.name for adapter in known) or "none (no adapter is loaded; see pah-opt plugins)"
    raise UnsupportedModelError(
        f"{_described(model)} is not a Vision Transformer of a known family; supported: {supported}; {_ADDING}"
    )


def _matches(adapter: ModelAdapter, model: nn.Module) -> bool:
    """Ask an adapter; one that fails at a model it was not made for does not know it."""
    try:
        return bool(adapter.matches(model))
    except Exception:  # noqa: BLE001  # a plugin's adapter may raise anything, and must not stand in the way of the others
        _LOG.warning("the model adapter %s failed at a %s", adapter.name, type(model).__name__, exc_info=True)
        return False


def _described(model: Any) -> str:
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    children = getattr(model, "named_children", None)
    if children is None:
        return f"a {kind}"
    parts = [f"{name}: {type(child).__name__}" for name, child in children()]
    shown = ", ".join(parts[:6]) + (", …" if len(parts) > 6 else "")
    return f"{kind} (with {shown})" if parts else f"{kind} (with no submodules)"
