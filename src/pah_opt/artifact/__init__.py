"""What came out of a recipe: the model and exactly how it was made; save, load and inspect it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pah_opt.artifact.hub import push_to_hub
    from pah_opt.artifact.inspecting import Inspection, inspect
    from pah_opt.artifact.loading import load
    from pah_opt.artifact.record import Artifact, Examples, StepRecord, WeightsOrigin

_HOMES = {
    "Artifact": "pah_opt.artifact.record",
    "Examples": "pah_opt.artifact.record",
    "Inspection": "pah_opt.artifact.inspecting",
    "StepRecord": "pah_opt.artifact.record",
    "WeightsOrigin": "pah_opt.artifact.record",
    "inspect": "pah_opt.artifact.inspecting",
    "load": "pah_opt.artifact.loading",
    "push_to_hub": "pah_opt.artifact.hub",
}

__all__ = [
    "Artifact",
    "Examples",
    "Inspection",
    "StepRecord",
    "WeightsOrigin",
    "inspect",
    "load",
    "push_to_hub",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use, so that inspecting a folder needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pah_opt.artifact' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
