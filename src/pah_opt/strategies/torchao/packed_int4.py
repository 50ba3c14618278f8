"""Weights of four bits that work on every device: two a byte, expanded for each product.

torchao 0.18 has no four-bit weights that suit a Vision Transformer: its plain and preshuffled formats need the mslk
package, the CPU's ``Int4OpaqueTensor`` multiplied 50 times slower than float for 197 tokens (its kernel is made for
one token at a time) and lays bytes out for one kind of CPU, and tinygemm's needs bfloat16 on CUDA. For a whole image
of tokens it is cheapest to expand the weight, a few per cent of the product's time, and to multiply in float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pah_opt.strategies.torchao import backend

if TYPE_CHECKING:
    from torchao.utils import TorchAOBaseTensor
    from typing_extensions import Self
else:
    TorchAOBaseTensor = backend.load("torchao.utils").TorchAOBaseTensor

LEVELS = 15
"""Highest of the sixteen values of four bits."""


class PackedInt4Tensor(TorchAOBaseTensor):  # type: ignore[misc]  # torchao publishes no types
    """A weight ``(out, in)`` whose groups of neighbours in a row are ``(value - zero_point) * scale``.

    The zero point is one of the sixteen values, so that zeros stay exactly zero.

    Args:
        qdata: uint8, ``(out, in / 2)``: for each group, the first half of its values in the low four bits, the second
            half in the high ones.
        scale: float16, ``(out, in / group_size)``.
        zero_point: uint8, ``(out, in / group_size)``.
        group_size: neighbours that share a scale; even.
        dtype: what the weight stands for, and what it expands to.
    """

    tensor_data_names = ["qdata", "scale", "zero_point"]  # noqa: RUF012  # torchao copies this list
    tensor_attribute_names = ["group_size", "dtype"]  # noqa: RUF012  # likewise

    def __new__(
        cls, qdata: Tensor, _scale: Tensor, _zero_point: Tensor, _group_size: int, dtype: torch.dtype, /
    ) -> Self:
        """Make a tensor that pretends to be dense."""
        shape = (qdata.shape[0], qdata.shape[1] * 2)
        made: Self = torch.Tensor._make_wrapper_subclass(  # noqa: SLF001  # the documented way
            cls, shape, dtype=dtype, device=qdata.device, requires_grad=False
        )
        return made

    def __init__(
        self, qdata: Tensor, scale: Tensor, zero_point: Tensor, group_size: int, _dtype: torch.dtype, /
    ) -> None:
        super().__init__()
        self.qdata = qdata
        self.scale = scale
        self.zero_point = zero_point
        self.group_size = group_size

    @classmethod
    def pack(cls, values: Tensor, scale: Tensor, zero_point: Tensor, dtype: torch.dtype) -> PackedInt4Tensor:
        """Pack values of four bits.

        Args:
            values: uint8 from 0 to 15, ``(out, groups, group_size)``.
            scale: ``(out, groups)``.
            zero_point: from 0 to 15, ``(out, groups)``.
            dtype: what the weight expands to.
        """
        rows, groups, size = values.shape
        first, second = values[..., : size // 2], values[..., size // 2 :]
        packed = (first | (second << 4)).reshape(rows, groups * size // 2)
        return cls(packed, scale.half(), zero_point.to(torch.uint8), size, dtype)

    @classmethod
    def without_values(cls, weight: Tensor, group_size: int) -> PackedInt4Tensor:
        """Return what a weight ``(out, in)`` would be packed into, on its device, with any values."""
        rows, columns = weight.shape
        packed = torch.empty((rows, columns // 2), dtype=torch.uint8, device=weight.device)
        scale = torch.empty((rows, columns // group_size), dtype=torch.float16, device=weight.device)
        return cls(packed, scale, torch.empty_like(scale, dtype=torch.uint8), group_size, weight.dtype)

    def dequantize(self, output_dtype: torch.dtype | None = None) -> Tensor:
        """Return the dense weight, ``(out, in)``."""
        dtype = self.dtype if output_dtype is None else output_dtype
        rows, groups = self.scale.shape
        halves = self.qdata.view(rows, groups, self.group_size // 2)
        values = torch.cat((halves & LEVELS, halves >> 4), dim=-1).to(dtype)
        shifted = values - self.zero_point.to(dtype).unsqueeze(-1)
        return (shifted * self.scale.to(dtype).unsqueeze(-1)).view(rows, groups * self.group_size)

    def _stable_hash_for_caching(self) -> str:
        # torch.compile asks for what tells two graphs apart: shapes and types, not values.
        return f"{type(self).__qualname__}{tuple(self.shape)}{self.group_size}{self.dtype}{self.device}"

    def __repr__(self, **_: Any) -> str:
        """Say what it is, without its values."""
        return f"PackedInt4Tensor(shape={tuple(self.shape)}, group_size={self.group_size}, dtype={self.dtype})"


_LINEAR = (torch.ops.aten.linear.default, torch.nn.functional.linear)


@PackedInt4Tensor.implements(_LINEAR[0])  # type: ignore[untyped-decorator]
@PackedInt4Tensor.implements_torch_function(_LINEAR[1])  # type: ignore[untyped-decorator]
def _linear(_func: Any, _types: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Tensor:
    inputs, weight, bias = (*args, *(kwargs or {}).values(), None)[:3]
    return torch.nn.functional.linear(inputs, weight.dequantize(inputs.dtype), bias)
