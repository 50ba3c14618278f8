"""Floating-point operations of a forward pass, counted by torch's own formulas while it runs on the ``meta`` device.

What takes long there is not the counting. torch's rules for shapes are whole reference implementations in Python: a
layer normalisation or a softmax takes 2 ms, a linear layer 0.8 ms; and its counter keeps a sum for each module. A plan
counts a model several times, and a search plans hundreds of recipes, so the commonest shapes are worked out here: in
all a ViT-B is counted in a sixth of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

aten = torch.ops.aten


def _addmm(bias: Tensor, left: Tensor, right: Tensor) -> Tensor | None:
    shape = (left.shape[0], right.shape[1])
    fits = left.shape[1] == right.shape[0] and bias.ndim == 1 and bias.shape[0] in (1, shape[1])
    return left.new_empty(shape) if fits and left.dtype == right.dtype == bias.dtype else None


def _mm(left: Tensor, right: Tensor) -> Tensor | None:
    fits = left.shape[1] == right.shape[0] and left.dtype == right.dtype
    return left.new_empty((left.shape[0], right.shape[1])) if fits else None


def _layer_norm(
    inputs: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, _eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    own = [each for each in (weight, bias) if each is not None]
    fits = all(tuple(each.shape) == tuple(shape) for each in own) and tuple(inputs.shape[-len(shape) :]) == tuple(shape)
    if not fits or any(each.dtype != inputs.dtype for each in own):
        return None
    statistics = inputs.new_empty((*inputs.shape[: -len(shape)], *(1 for _ in shape)))
    return torch.empty_like(inputs), statistics, torch.empty_like(statistics)


def _add(left: Any, right: Any) -> Tensor | None:
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return None
    return torch.empty_like(left) if left.shape == right.shape and left.dtype == right.dtype else None


def _gelu(inputs: Tensor) -> Tensor:
    return torch.empty_like(inputs)


def _softmax(inputs: Tensor, _dim: int, *other: Any) -> Tensor | None:
    # torch has a flag here, whether half precision becomes float32, or a type to turn into.
    return None if any(other) else torch.empty_like(inputs)


def _scaled(inputs: Tensor, factor: float) -> Tensor | None:
    return torch.empty_like(inputs) if inputs.is_floating_point() and isinstance(factor, float) else None


RULES: dict[Any, Callable[..., Any]] = {
    aten.addmm.default: _addmm,
    aten.mm.default: _mm,
    aten.native_layer_norm.default: _layer_norm,
    aten._safe_softmax.default: _softmax,  # noqa: SLF001  # torch's names
    aten._softmax.default: _softmax,  # noqa: SLF001
    aten.add.Tensor: _add,
    aten.gelu.default: _gelu,
    aten.mul.Scalar: _scaled,
}
"""Each gives what the operation would, without values; None where the arguments do not fit, or something is unusual."""


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """While it is entered, adds up what torch's ``flop_registry`` says of each operation, in :attr:`total`.

    Enter it under ``no_grad`` rather than in inference mode, where operations that are made of others arrive whole and
    are taken apart here: that gives the same sum and takes longer.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer one operation, by :data:`RULES` where there are no values, and count it."""
        kwargs = kwargs or {}
        formula = flop_registry.get(getattr(func, "_overloadpacket", None))
        out = _by_rule(func, args) if not kwargs else None
        if out is None and formula is None:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is NotImplemented:  # it is not made of others
                out = func(*args, **kwargs)
            return out
        if out is None:
            out = func(*args, **kwargs)
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=out))
        return out


def _by_rule(func: Any, args: tuple[Any, ...]) -> Any:
    rule = RULES.get(func)
    if rule is None or not all(each.is_meta for each in args if isinstance(each, Tensor)):
        return None
    return rule(*args)
