"""Make linear layers out of linear layers: stack them, cut them apart, wrap tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


def linear_of(weight: Tensor, bias: Tensor | None, *, requires_grad: bool = True) -> nn.Linear:
    """Return a linear layer with this weight, ``(out, in)``, and bias, ``(out,)``; the tensors are not copied."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta", dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.detach(), requires_grad=requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), requires_grad=requires_grad)
    return layer


def stacked(layers: Sequence[nn.Linear]) -> nn.Linear:
    """Return one linear layer with the rows of several, in order; a missing bias counts as zero beside present ones.

    Args:
        layers: layers with the same ``in_features``.
    """
    weight = torch.cat([layer.weight.detach() for layer in layers])
    has_bias = any(layer.bias is not None for layer in layers)
    bias = torch.cat([_bias_or_zeros(layer) for layer in layers]) if has_bias else None
    return linear_of(weight, bias, requires_grad=layers[0].weight.requires_grad)


def _bias_or_zeros(layer: nn.Linear) -> Tensor:
    bias: Tensor | None = layer.bias
    return layer.weight.new_zeros(layer.weight.shape[0]) if bias is None else bias.detach()


def unstacked(layer: nn.Linear, rows: Sequence[int]) -> tuple[nn.Linear, ...]:
    """Cut a linear layer into several with that many rows each, in order; each owns its memory."""
    bias: Tensor | None = layer.bias
    weights = torch.split(layer.weight.detach(), list(rows))
    biases = [None] * len(rows) if bias is None else [part.clone() for part in torch.split(bias.detach(), list(rows))]
    return tuple(
        linear_of(weight.clone(), part, requires_grad=layer.weight.requires_grad)
        for weight, part in zip(weights, biases, strict=True)
    )
