"""Make single blocks of a model narrower: by torch-pruning's graph where it agrees with the Layout, else by that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.models.attributes import set_head_shape
from pah_opt.models.conversion import refuse_extras
from pah_opt.models.narrowing import keep_head_dims, keep_heads, keep_units
from pah_opt.strategies.structured import compensation, lowrank
from pah_opt.strategies.structured.graph import head_cuts, traced, unit_cuts
from pah_opt.strategies.structured.weights import linear, projections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from pah_opt.layout import Attention, Layout, Mlp, ModelAdapter
    from pah_opt.strategies.structured.graph import Cuts
    from pah_opt.strategies.structured.observation import Moments
    from pah_opt.strategies.structured.weights import Rows


class Cutter:
    """Removes heads, head dimensions and hidden units of one model, in place.

    Args:
        model: in ``eval`` mode; any device, ``meta`` too.
        adapter: knows the model's family.
        layout: of ``model``, before any cut.
    """

    def __init__(self, model: nn.Module, adapter: ModelAdapter, layout: Layout) -> None:
        self.model = model
        self._graph, self.method = traced(model, adapter, layout)

    def heads(self, attention: Attention, kept: Sequence[int]) -> None:
        """Keep only these heads, in ascending order."""
        module = self.model.get_submodule(attention.path)
        refuse_extras(module, attention.path, names=("norm", "gate"))
        removed = sorted(set(range(attention.num_heads)) - set(kept))
        if not self._cut(attention.output, head_cuts(attention, removed)):
            keep_heads(self.model, attention, sorted(kept))
        set_head_shape(module, num_heads=len(kept), head_dim=attention.head_dim, value_dim=attention.value_dim)

    def head_dims(self, attention: Attention, query_width: int, value_width: int) -> None:
        """Keep the first dimensions of every head."""
        heads = attention.num_heads
        keep_head_dims(self.model, attention, [range(query_width)] * heads, [range(value_width)] * heads)

    def units(self, mlp: Mlp, kept: Sequence[int]) -> None:
        """Keep only these hidden units, in ascending order."""
        removed = sorted(set(range(mlp.width)) - set(kept))
        if not self._cut(mlp.fc2, unit_cuts(mlp, removed)):
            keep_units(self.model, mlp, sorted(kept))

    def _cut(self, path: str, cuts: Cuts) -> bool:
        if self._graph is None:
            return False
        done = self._graph.cut(path, cuts)
        if not done:
            self.method = f"the layout alone, since torch-pruning's graph does not agree with it at {path}"
        return done


@torch.no_grad()
def repair_reader(model: nn.Module, path: str, seen: Moments, kept: Tensor, repair: str) -> None:
    """Let the kept inputs of a linear layer take over for the others, whose columns are then ready to be cut.

    Args:
        model: changed in place.
        path: the layer that reads heads or hidden units.
        seen: of its inputs.
        kept: inputs that stay.
        repair: ``mean`` or ``least-squares``; without a bias, ``mean`` can do nothing.
    """
    layer = linear(model, path)
    bias: Tensor | None = layer.bias
    if repair == "least-squares":
        weight, shifted = compensation.absorb_linear(layer.weight, bias, seen.mean, seen.covariance, kept)
    elif bias is not None:
        weight, shifted = compensation.absorb_mean(layer.weight, bias, seen.mean, kept)
    else:
        return
    layer.weight[:, kept] = weight
    if bias is not None and shifted is not None:
        bias.copy_(shifted)


@torch.no_grad()
def concentrate_heads(
    model: nn.Module, attention: Attention, query_width: int, value_width: int, seen: tuple[Moments, Moments] | None
) -> None:
    """Rewrite the heads of an attention so that their first dimensions carry as much as they can.

    Args:
        model: changed in place; only the first dimensions of each head are meaningful afterwards.
        attention: from the model's layout.
        query_width: dimensions of query and key that will stay.
        value_width: dimensions of value that will stay.
        seen: of the inputs of the query projection, and of the output projection; without them, inputs are taken as
            uncorrelated with unit variance.
    """
    inputs, joined = seen or _assumed(model, attention)
    query, key, value = projections(model, attention)
    output = linear(model, attention.output)
    read = joined.covariance if output.bias is not None else joined.second_moment
    bases: list[Tensor] = []
    kept: list[int] = []
    for head in range(attention.num_heads):
        rows = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
        columns = slice(head * attention.value_dim, (head + 1) * attention.value_dim)
        _concentrate_scores(query, key, rows, inputs, query_width)
        basis = lowrank.value_basis(output.weight[:, columns].to(read.dtype), read[columns, columns], value_width)
        lowrank.apply_rows(basis, value.weight[columns], _part(value.bias, columns))
        bases.append(basis)
        kept += range(columns.start, columns.start + value_width)
    joint: Tensor = torch.block_diag(*bases)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    _read_anew(output, joined, joint, torch.tensor(kept, device=output.weight.device))


def _concentrate_scores(query: Rows, key: Rows, rows: slice, inputs: Moments, width: int) -> None:
    queries = inputs.through(query.weight[rows], _part(query.bias, rows)).second_moment
    keys = inputs.through(key.weight[rows], _part(key.bias, rows)).covariance
    for part, mapping in zip((query, key), lowrank.score_bases(queries, keys, width), strict=True):
        lowrank.apply_rows(mapping, part.weight[rows], _part(part.bias, rows))


def _read_anew(output: nn.Linear, joined: Moments, basis: Tensor, kept: Tensor) -> None:
    bias: Tensor | None = output.bias
    weight = output.weight.to(basis.dtype)
    read = joined.covariance if bias is not None else joined.second_moment
    narrow = lowrank.readout(weight, read, basis, lowrank.READOUT_RIDGE)
    if bias is not None:
        bias += (weight @ joined.mean - narrow @ (basis @ joined.mean)).to(bias.dtype)
    output.weight[:, kept] = narrow.to(output.weight.dtype)


def _assumed(model: nn.Module, attention: Attention) -> tuple[Moments, Moments]:
    from pah_opt.strategies.structured.observation import Moments

    value = projections(model, attention)[2]
    inputs = Moments.standard(value.weight.shape[1], value.weight.device)
    return inputs, inputs.through(value.weight, value.bias)


def _part(bias: Tensor | None, rows: slice) -> Tensor | None:
    return None if bias is None else bias[rows]
