"""Tensors to files and back, safely: what a saved model holds, byte for byte.

The modules here know nothing of recipes. A model's tensors become *leaves* (plain tensors, :mod:`.leaves`), each leaf
takes the smallest lossless *encoding* (:mod:`.encoding`), and the encoded parts are the entries of one safetensors file
(:mod:`.weights`). :mod:`.atomic` writes files and folders so that a crash leaves the old content or the new whole.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pah_opt.storage.size import stored_bytes

_HOMES = {"stored_bytes": "pah_opt.storage.size"}

__all__ = ["stored_bytes"]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use: :mod:`pah_opt.storage.atomic` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pah_opt.storage' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
