"""NF4 and FP4 weights whose rounding errors are made up for, in the form that bitsandbytes computes with.

Pure functions of tensors, apart from the library's own tables. A weight is cut into blocks along its rows; a block's
values are sixteen fixed numbers from -1 to 1 times its scale.

References:
    Dettmers et al., QLoRA, https://arxiv.org/abs/2305.14314.
    Frantar et al., GPTQ, https://arxiv.org/abs/2210.17323.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from pah_opt.models.gptq import gptq
from pah_opt.strategies.bitsandbytes import backend

if TYPE_CHECKING:
    from torch import Tensor

    from pah_opt.strategies.bitsandbytes.modules import LayerKind

NESTED_BLOCK = 256
"""Scales that share a scale, with double quantization; bitsandbytes has no other."""
SHRINKS = tuple(1.0 - 0.03 * step for step in range(11))
"""Shares of a block's largest weight that are tried as its scale; smaller ones clip a few and round the rest better."""


class Scaled:
    """The sixteen values of one block of every row.

    Args:
        code: the sixteen numbers, ``(16,)``, in the library's order.
        scale: ``(rows,)``; zero for a row whose block is all zeros, as bitsandbytes has it.
    """

    def __init__(self, code: Tensor, scale: Tensor) -> None:
        self.scale = scale
        self._values, self._order = code.sort()
        self._bounds = (self._values[1:] + self._values[:-1]) / 2

    def nearest(self, column: Tensor) -> tuple[Tensor, Tensor]:
        """Return the number of the nearest value of each row's weight (or weights, ``(rows, n)``), and that value."""
        scale = self.scale.reshape(-1, *[1] * (column.ndim - 1))
        place = torch.bucketize(column / torch.where(scale > 0, scale, 1.0), self._bounds)
        return self._order[place], self._values[place] * scale


def best_scale(code: Tensor, block: Tensor, importance: Tensor) -> Scaled:
    """Return the scale of each row's block with the least squared error among several.

    Args:
        code: the sixteen numbers, ``(16,)``.
        block: ``(rows, blocksize)``.
        importance: weight of each column's error, ``(blocksize,)``.
    """
    largest = block.abs().amax(dim=1)
    best, least = largest, torch.full_like(largest, torch.inf)
    for shrink in SHRINKS:
        scale = largest * shrink
        error = ((Scaled(code, scale).nearest(block)[1] - block).square() * importance).sum(dim=1)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return Scaled(code, best)


def rounded(weight: Tensor, second_moment: Tensor, kind: LayerKind) -> tuple[Tensor, Any]:
    """Return a weight's packed values, ``(bytes, 1)``, and bitsandbytes' state that belongs to them.

    Args:
        weight: ``(out, in)``; the block size divides ``in``.
        second_moment: of the layer's inputs, ``(in, in)``.
        kind: scheme, block size, double quantization.
    """
    functional = backend.load("bitsandbytes.functional")
    code = functional.get_4bit_type(kind.scheme, device=weight.device)
    found = gptq(
        weight, second_moment, kind.blocksize, lambda block, importance: best_scale(code, block, importance)
    )  # fmt: skip
    scales = torch.stack([grid.scale for grid in found.grids], dim=1).reshape(-1).contiguous()
    numbers = found.numbers.reshape(-1)
    packed = ((numbers[::2] << 4) | numbers[1::2]).unsqueeze(1)
    return packed, _state(functional, weight, scales, code, kind)


def _state(functional: Any, weight: Tensor, scales: Tensor, code: Tensor, kind: LayerKind) -> Any:
    nested: dict[str, Any] = {}
    if kind.double_quant:
        offset = scales.mean()
        scales, inner = functional.quantize_blockwise(scales - offset, blocksize=NESTED_BLOCK)
        nested = {"offset": offset, "state2": inner}
    return functional.QuantState(
        absmax=scales, shape=weight.shape, code=code, blocksize=kind.blocksize, quant_type=kind.scheme,
        dtype=weight.dtype, **nested,
    )  # fmt: skip
