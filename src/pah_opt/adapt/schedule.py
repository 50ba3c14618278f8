"""The learning rate over time, and which parameters decay: pure functions of the settings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from pah_opt.adapt.settings import TrainSettings


def lr_factor(step: int, total: int, warmup: float) -> float:
    """Return the share of the highest learning rate that update ``step`` (zero-based) of ``total`` uses.

    It rises linearly over the first ``warmup * total`` updates and follows a half cosine down to zero after them.

    >>> [round(lr_factor(step, 10, 0.2), 2) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.04]

    References:
        I. Loshchilov, F. Hutter: SGDR, https://arxiv.org/abs/1608.03983.
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(total - rising, 1)))


def adamw(
    parameters: Mapping[str, nn.Parameter], settings: TrainSettings, rates: Mapping[str, float]
) -> torch.optim.AdamW:
    """Make AdamW with decay on weight matrices only; each group keeps its highest rate as ``peak_lr``.

    Args:
        parameters: what is trained, by name.
        settings: rate and decay.
        rates: highest rates of parameters that do not follow ``settings.lr``, by name.

    References:
        I. Loshchilov, F. Hutter: Decoupled Weight Decay Regularization, https://arxiv.org/abs/1711.05101.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        peak = rates.get(name, settings.lr)
        groups.setdefault((peak, settings.weight_decay if decays(parameter) else 0.0), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "lr": peak, "peak_lr": peak, "weight_decay": decay}
            for (peak, decay), members in groups.items()
        ]
    )


def decays(parameter: nn.Parameter) -> bool:
    """Tell whether weight decay applies: to matrices and convolutions, not to norms, biases, tokens or positions."""
    return parameter.ndim in {2, 4}


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group's rate to ``factor`` times its highest; return the largest."""
    groups: list[dict[str, Any]] = optimizer.param_groups
    for group in groups:
        group["lr"] = group["peak_lr"] * factor
    return max(float(group["lr"]) for group in groups)
