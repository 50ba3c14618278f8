"""What came out of a recipe: the model and exactly how it was made; save, load and inspect it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pah_opt.artifact.loading import load
    from pah_opt.artifact.record import Artifact, Examples, StepRecord, WeightsOrigin

_HOMES = {
    "Artifact": "pah_opt.artifact.record",
    "Examples": "pah_opt.artifact.record",
    "StepRecord": "pah_opt.artifact.record",
    "WeightsOrigin": "pah_opt.artifact.record",
    "load": "pah_opt.artifact.loading",
}

__all__ = ["Artifact", "Examples", "StepRecord", "WeightsOrigin", "load"]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use, so that inspecting a folder needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pah_opt.artifact' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
