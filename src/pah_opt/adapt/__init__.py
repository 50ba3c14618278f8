"""Train Vision Transformers: adapt a pretrained one to new classes, recover accuracy, learn from a teacher.

Names are loaded when they are first used, so that strategies can declare themselves without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pah_opt.adapt.digits import TrainedDigits, digits_vit, train_digits_vit
    from pah_opt.adapt.evaluation import Score, evaluate
    from pah_opt.adapt.results import Epoch, TrainResult
    from pah_opt.adapt.settings import Augmentation, TrainSettings
    from pah_opt.adapt.training import fit

_HOMES = {
    "Augmentation": "settings",
    "Epoch": "results",
    "Score": "evaluation",
    "TrainResult": "results",
    "TrainSettings": "settings",
    "TrainedDigits": "digits",
    "digits_vit": "digits",
    "evaluate": "evaluation",
    "fit": "training",
    "train_digits_vit": "digits",
}

__all__ = [
    "Augmentation",
    "Epoch",
    "Score",
    "TrainResult",
    "TrainSettings",
    "TrainedDigits",
    "digits_vit",
    "evaluate",
    "fit",
    "train_digits_vit",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pah_opt.adapt' has no attribute {name!r}; public names: {', '.join(_HOMES)}")
    value = getattr(importlib.import_module(f"pah_opt.adapt.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
