"""Search: the best recipe under a budget, on one machine or many.

The package can be called: ``pah_opt.search(model, data, budget)`` searches; see
:func:`pah_opt.search.searching.search`. Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pah_opt.search.budget import Budget
    from pah_opt.search.records import Record
    from pah_opt.search.result import SearchResult
    from pah_opt.search.space import Space, Template, as_space, space_presets

_HOMES = {
    "Budget": "budget",
    "Record": "records",
    "SearchResult": "result",
    "Space": "space",
    "Template": "space",
    "as_space": "space",
    "space_presets": "space",
}

__all__ = ["Budget", "Record", "SearchResult", "Space", "Template", "as_space", "space_presets"]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pah_opt.search' has no attribute {name!r}; public names: {', '.join(_HOMES)}")
    value = getattr(importlib.import_module(f"pah_opt.search.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


class _CallablePackage(types.ModuleType):
    """This package, which is also the function that a user expects under its name."""

    def __call__(self, model: Any, data: Any, budget: Any = None, **options: Any) -> SearchResult:
        """Search; see :func:`pah_opt.search.searching.search`."""
        from pah_opt.search.searching import search

        return search(model, data, budget, **options)


sys.modules[__name__].__class__ = _CallablePackage
