"""Make attention and feed-forward networks narrower, in any layout, keeping every attribute of the module true.

Each function changes one block in place and works on the ``meta`` device. Call ``adapter.sync(model)`` once after all
blocks are done: it brings the config along. Logits stay exactly the same when what is removed contributed nothing:
the scores keep being multiplied by the original ``head_dim ** -0.5``, folded into the query projection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from pah_opt.errors import UnsupportedModelError
from pah_opt.models.attributes import scaling_of, set_head_shape, set_scaling
from pah_opt.models.conversion import convert_attention, refuse_extras
from pah_opt.models.surgery import keep_columns, keep_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.layout import Attention, Mlp


def keep_units(model: nn.Module, mlp: Mlp, units: Sequence[int] | Tensor) -> None:
    """Keep only these hidden units of a feed-forward network.

    Args:
        model: changed in place.
        mlp: from the model's layout.
        units: indices into ``mlp.width``.
    """
    for path in (mlp.fc1, mlp.gate):
        if path is not None:
            keep_rows(_linear(model, path), units)
    keep_columns(_linear(model, mlp.fc2), units)


def keep_heads(model: nn.Module, attention: Attention, heads: Sequence[int]) -> None:
    """Keep only these heads of an attention.

    Args:
        model: changed in place.
        attention: from the model's layout.
        heads: indices into ``attention.num_heads``; at least one.

    Raises:
        UnsupportedModelError: no head is left, or the attention normalises or gates the joined heads.
    """
    if not heads:
        raise UnsupportedModelError(f"{attention.path} must keep at least one of its {attention.num_heads} heads")
    module = model.get_submodule(attention.path)
    refuse_extras(module, attention.path, names=("norm", "gate"))
    query = [range(attention.head_dim)] * len(heads)
    value = [range(attention.value_dim)] * len(heads)
    _keep(model, attention, _Kept.of(attention, heads, query, value))
    set_head_shape(module, num_heads=len(heads), head_dim=attention.head_dim, value_dim=attention.value_dim)


def keep_head_dims(
    model: nn.Module, attention: Attention, query_dims: Sequence[Sequence[int]], value_dims: Sequence[Sequence[int]]
) -> None:
    """Keep only these dimensions of each head; every head keeps equally many.

    Where value heads become narrower than query and key heads (or the other way round), the attention is replaced by
    the library's own (:class:`~pah_opt.models.attention.SelfAttention`).

    Args:
        model: changed in place.
        attention: from the model's layout.
        query_dims: for each head, indices into ``attention.head_dim`` (queries and keys share them).
        value_dims: for each head, indices into ``attention.value_dim``.

    Raises:
        UnsupportedModelError: heads would differ in width or be empty, or queries and keys are normalised.
    """
    head_dim, value_dim = _common(query_dims, attention), _common(value_dims, attention)
    refuse_extras(model.get_submodule(attention.path), attention.path)
    scaling = scaling_of(model.get_submodule(attention.path), attention)
    if head_dim != value_dim and not hasattr(model.get_submodule(attention.path), "value_dim"):
        attention = convert_attention(model, attention, fused=attention.fused)
    _keep(model, attention, _Kept.of(attention, range(attention.num_heads), query_dims, value_dims))
    module = model.get_submodule(attention.path)
    set_head_shape(module, num_heads=attention.num_heads, head_dim=head_dim, value_dim=value_dim)
    set_scaling(model, replace(attention, head_dim=head_dim, value_dim=value_dim), scaling)


def _common(dims: Sequence[Sequence[int]], attention: Attention) -> int:
    widths = {len(kept) for kept in dims}
    if len(dims) != attention.num_heads or len(widths) != 1 or 0 in widths:
        raise UnsupportedModelError(
            f"the {attention.num_heads} heads of {attention.path} must all keep the same number of dimensions, at "
            f"least one; got {[len(kept) for kept in dims]}"
        )
    return widths.pop()


@dataclass(frozen=True)
class _Kept:
    """Rows of one query (or key) projection and of the value projection that stay."""

    query: list[int]
    value: list[int]

    @classmethod
    def of(
        cls,
        attention: Attention,
        heads: Sequence[int],
        query_dims: Sequence[Sequence[int]],
        value_dims: Sequence[Sequence[int]],
    ) -> _Kept:
        return cls(
            [head * attention.head_dim + d for head, dims in zip(heads, query_dims, strict=True) for d in dims],
            [head * attention.value_dim + d for head, dims in zip(heads, value_dims, strict=True) for d in dims],
        )


def _keep(model: nn.Module, attention: Attention, kept: _Kept) -> None:
    if attention.fused:
        rows = attention.num_heads * attention.head_dim
        joined = [*kept.query, *(rows + row for row in kept.query), *(2 * rows + row for row in kept.value)]
        keep_rows(_linear(model, attention.query), joined)
    else:
        keep_rows(_linear(model, attention.query), kept.query)
        keep_rows(_linear(model, attention.key), kept.query)
        keep_rows(_linear(model, attention.value), kept.value)
    keep_columns(_linear(model, attention.output), kept.value)


def _linear(model: nn.Module, path: str) -> nn.Linear:
    layer = model.get_submodule(path)
    if not isinstance(layer, nn.Linear):
        raise UnsupportedModelError(f"{path} is a {type(layer).__name__}; only nn.Linear can be made narrower")
    return layer
