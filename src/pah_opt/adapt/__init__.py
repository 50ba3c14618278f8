"""Train Vision Transformers: adapt a pretrained one to new classes, recover accuracy, learn from a teacher.

The package can be called: ``pah_opt.adapt(model, data, mode="head")`` adapts a model; see
:func:`pah_opt.adapt.adaptation.adapt`. Names are loaded when they are first used, so that strategies can declare
themselves without torch.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.adapt.adaptation import Adaptation
    from pah_opt.adapt.config import AdaptConfig
    from pah_opt.adapt.curves import save_curves
    from pah_opt.adapt.digits import Digits, TrainedDigits, digits_vit, pretrained_digits_vit, train_digits_vit
    from pah_opt.adapt.evaluation import Score, evaluate
    from pah_opt.adapt.results import Epoch, TrainResult
    from pah_opt.adapt.settings import Augmentation, TrainSettings
    from pah_opt.adapt.training import fit

_HOMES = {
    "AdaptConfig": "config",
    "Adaptation": "adaptation",
    "Augmentation": "settings",
    "Digits": "digits",
    "Epoch": "results",
    "Score": "evaluation",
    "TrainResult": "results",
    "TrainSettings": "settings",
    "TrainedDigits": "digits",
    "digits_vit": "digits",
    "evaluate": "evaluation",
    "fit": "training",
    "pretrained_digits_vit": "digits",
    "save_curves": "curves",
    "train_digits_vit": "digits",
}

__all__ = [
    "AdaptConfig",
    "Adaptation",
    "Augmentation",
    "Digits",
    "Epoch",
    "Score",
    "TrainResult",
    "TrainSettings",
    "TrainedDigits",
    "digits_vit",
    "evaluate",
    "fit",
    "pretrained_digits_vit",
    "save_curves",
    "train_digits_vit",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pah_opt.adapt' has no attribute {name!r}; public names: {', '.join(_HOMES)}")
    value = getattr(importlib.import_module(f"pah_opt.adapt.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


class _CallablePackage(types.ModuleType):
    """This package, which is also the function that a user expects under its name."""

    def __call__(self, model: nn.Module, data: Any, mode: Any = "full", **options: Any) -> Adaptation:
        """Adapt a model; see :func:`pah_opt.adapt.adaptation.adapt`."""
        from pah_opt.adapt.adaptation import adapt

        return adapt(model, data, mode, **options)


sys.modules[__name__].__class__ = _CallablePackage
