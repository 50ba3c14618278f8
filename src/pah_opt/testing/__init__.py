"""What a plugin author imports to test a plugin: its contract, and tiny models of every family.

Nothing here imports pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pah_opt.testing.contract import OptimizerContract
    from pah_opt.testing.models import (
        TINY_MODELS,
        tiny_deit,
        tiny_dinov2,
        tiny_images,
        tiny_legacy_vit,
        tiny_timm_vit,
        tiny_torchvision_vit,
        tiny_vit,
    )
    from pah_opt.testing.partners import PARTNERS
    from pah_opt.testing.trial import tiny_data

_HOMES = {
    "OptimizerContract": "pah_opt.testing.contract",
    "PARTNERS": "pah_opt.testing.partners",
    "TINY_MODELS": "pah_opt.testing.models",
    "tiny_data": "pah_opt.testing.trial",
    "tiny_deit": "pah_opt.testing.models",
    "tiny_dinov2": "pah_opt.testing.models",
    "tiny_images": "pah_opt.testing.models",
    "tiny_legacy_vit": "pah_opt.testing.models",
    "tiny_timm_vit": "pah_opt.testing.models",
    "tiny_torchvision_vit": "pah_opt.testing.models",
    "tiny_vit": "pah_opt.testing.models",
}

__all__ = [
    "PARTNERS",
    "TINY_MODELS",
    "OptimizerContract",
    "tiny_data",
    "tiny_deit",
    "tiny_dinov2",
    "tiny_images",
    "tiny_legacy_vit",
    "tiny_timm_vit",
    "tiny_torchvision_vit",
    "tiny_vit",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pah_opt.testing' has no attribute {name!r}; public names: {', '.join(_HOMES)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return list(__all__)
