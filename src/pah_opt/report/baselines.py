"""The strongest baselines: what a user gets from the dense model without compressing anything."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from pah_opt.models.compiling import isolated


def strong_baselines(model: Any, *, name: str = "dense", mode: str | None = None) -> dict[str, nn.Module]:
    """Return the model in bf16, and compiled in bf16, beside which a compressed model should be shown.

    fp32 eager alone is an easy baseline: on a GPU these two are several times as fast at next to no loss.

    Args:
        model: a dense module, or anything that holds one as ``model``.
        name: its name in the report.
        mode: mode of ``torch.compile``.
    """
    module: nn.Module = model if isinstance(model, nn.Module) else model.model
    half = copy.deepcopy(module).to(torch.bfloat16)
    compiled: nn.Module = torch.compile(  # type: ignore[assignment]  # typed as a function
        copy.deepcopy(half), mode=mode, **isolated()
    )
    return {f"{name} bf16": half, f"{name} bf16 compiled": compiled}
