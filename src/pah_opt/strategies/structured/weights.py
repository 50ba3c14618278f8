"""The weights that belong to each head or hidden unit, read from a model through its Layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from pah_opt.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.layout import Attention, Block
    from pah_opt.strategies.structured.sizes import Kind


@dataclass(frozen=True)
class Rows:
    """Some rows of a linear layer: one of query, key and value, whether they share a layer or not.

    Args:
        layer: the layer.
        start: first row.
        stop: one past the last row.
    """

    layer: nn.Linear
    start: int
    stop: int

    @property
    def weight(self) -> Tensor:
        """The rows, ``(stop - start, in_features)``, as a view without gradient."""
        return self.layer.weight.detach()[self.start : self.stop]

    @property
    def bias(self) -> Tensor | None:
        """Their biases, ``(stop - start,)``, as a view without gradient."""
        bias: Tensor | None = self.layer.bias
        return None if bias is None else bias.detach()[self.start : self.stop]


def linear(model: nn.Module, path: str) -> nn.Linear:
    """Return the linear layer at ``path``.

    Raises:
        UnsupportedModelError: it is something else, or its weights are not floating-point.
    """
    layer = model.get_submodule(path)
    if not isinstance(layer, nn.Linear) or not layer.weight.is_floating_point():
        raise UnsupportedModelError(f"{path} is a {type(layer).__name__}; structured pruning cuts nn.Linear in float")
    return layer


def projections(model: nn.Module, attention: Attention) -> tuple[Rows, Rows, Rows]:
    """Return the rows of query, key and value.

    Raises:
        UnsupportedModelError: they are not linear layers.
    """
    rows = attention.num_heads * attention.head_dim
    value_rows = attention.num_heads * attention.value_dim
    query, key, value = (linear(model, path) for path in (attention.query, attention.key, attention.value))
    if attention.fused:
        return Rows(query, 0, rows), Rows(key, rows, 2 * rows), Rows(value, 2 * rows, 2 * rows + value_rows)
    return Rows(query, 0, rows), Rows(key, 0, rows), Rows(value, 0, value_rows)


def unit_weights(model: nn.Module, block: Block, kind: Kind) -> list[Tensor]:
    """Return the weights of every head, or of every hidden unit: one row per unit, one matrix per layer.

    Args:
        model: the model.
        block: from its layout.
        kind: ``heads`` or ``mlp``.
    """
    if kind == "heads":
        parts = [rows.weight for rows in projections(model, block.attention)]
        parts.append(linear(model, block.attention.output).weight.detach().T)
        return [part.reshape(block.attention.num_heads, -1) for part in parts]
    first = [linear(model, path).weight.detach() for path in (block.mlp.fc1, block.mlp.gate) if path is not None]
    return [*first, linear(model, block.mlp.fc2).weight.detach().T]


def consumer(block: Block, kind: Kind) -> tuple[str, int]:
    """Return the layer that reads the units, and how many of its inputs belong to one unit."""
    return (block.attention.output, block.attention.value_dim) if kind == "heads" else (block.mlp.fc2, 1)


def mean_problems(model: nn.Module, repair: str, paths: Iterable[str]) -> list[str]:
    """Return why ``repair: mean`` would repair nothing; empty where it can.

    Args:
        model: the model.
        repair: what was asked for.
        paths: the layers whose biases would take up the mean.
    """
    if repair != "mean" or any(linear(model, path).bias is not None for path in paths):
        return []
    nowhere = (
        "repair: mean moves what the removed parts gave on average into biases, and the layers that would take it up "
        "have none; use repair: least-squares, or none"
    )
    return [nowhere]
