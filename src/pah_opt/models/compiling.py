"""How this library calls torch.compile."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch


def isolated() -> dict[str, Any]:
    """Return what makes torch.compile count compilations for each model alone, where this torch can.

    By default torch counts them by code that all models of a class share, and runs whatever comes after the eighth as
    it was, with a warning among many.
    """
    return {"isolate_recompiles": True} if "isolate_recompiles" in signature(torch.compile).parameters else {}
