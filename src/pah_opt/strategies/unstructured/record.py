"""What a pruning step reports: zeros asked for and reached, per layer, over the chosen layers and over the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from pah_opt.optimizer import Context

DENSE_NOTE = (
    "dense kernels multiply by zeros too: expect no speed-up and no smaller model in memory; "
    "zeros make compressed files smaller"
)


def zeros_of(layers: Mapping[str, nn.Linear]) -> dict[str, int]:
    """Count the exact zeros in each layer's weight."""
    return {path: _zeros(layer.weight) for path, layer in layers.items()}


def _zeros(tensor: Tensor) -> int:
    return tensor.numel() - int(torch.count_nonzero(tensor.detach()))


def record_zeros(
    context: Context, model: nn.Module, layers: Mapping[str, nn.Linear], before: Mapping[str, int], asked: float
) -> None:
    """Report the zeros in ``layers`` now.

    Args:
        context: reported to.
        model: the whole model.
        layers: the layers that were worked on.
        before: their zeros before the step, from :func:`zeros_of`.
        asked: share of zeros asked for.
    """
    after = zeros_of(layers)
    sizes = {path: layer.weight.numel() for path, layer in layers.items()}
    new = sum(after.values()) - sum(before.values())
    chosen = {id(layer.weight) for layer in layers.values()}
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    everything = sum(sizes.values()) + sum(parameter.numel() for parameter in others)
    context.record("sparsity_asked", asked)
    context.record("sparsity", sum(after.values()) / sum(sizes.values()))
    context.record("model_sparsity", (sum(after.values()) + sum(map(_zeros, others))) / everything)
    context.record("new_zeros", new)
    context.record(
        "layers", {path: {"weights": n, "zeros": after[path], "sparsity": after[path] / n} for path, n in sizes.items()}
    )
    context.record(
        "note",
        DENSE_NOTE if new > 0 else f"the layers held {sum(before.values()):,} zeros already, as many as were asked for",
    )
