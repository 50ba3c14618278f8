"""Models: adapters for families of Vision Transformers, and what strategies need to look at and change them.

Names are loaded when they are first used, so that plugins can be listed without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pah_opt.models.adapters.facts import Fact
    from pah_opt.models.adapters.huggingface import HuggingFaceAdapter
    from pah_opt.models.adapters.names import AttentionNames, FamilyNames, MlpNames
    from pah_opt.models.finding import find_adapter
    from pah_opt.models.outputs import logits_of
    from pah_opt.models.pretrained import LoadedModel, load_model
    from pah_opt.models.selection import select_linears, unmatched_patterns
    from pah_opt.models.state import model_problems, state_tags

_HOMES = {
    "AttentionNames": "pah_opt.models.adapters.names",
    "Fact": "pah_opt.models.adapters.facts",
    "FamilyNames": "pah_opt.models.adapters.names",
    "HuggingFaceAdapter": "pah_opt.models.adapters.huggingface",
    "LoadedModel": "pah_opt.models.pretrained",
    "MlpNames": "pah_opt.models.adapters.names",
    "find_adapter": "pah_opt.models.finding",
    "load_model": "pah_opt.models.pretrained",
    "logits_of": "pah_opt.models.outputs",
    "model_problems": "pah_opt.models.state",
    "select_linears": "pah_opt.models.selection",
    "state_tags": "pah_opt.models.state",
    "unmatched_patterns": "pah_opt.models.selection",
}

__all__ = [
    "AttentionNames",
    "Fact",
    "FamilyNames",
    "HuggingFaceAdapter",
    "LoadedModel",
    "MlpNames",
    "find_adapter",
    "load_model",
    "logits_of",
    "model_problems",
    "select_linears",
    "state_tags",
    "unmatched_patterns",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pah_opt.models' has no attribute {name!r}; public names: {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
