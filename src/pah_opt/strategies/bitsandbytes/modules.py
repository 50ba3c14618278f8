"""Linear layers of bitsandbytes, made from plain ones: quantized now, empty for loading, or without values.

bitsandbytes swaps no modules and quantizes a parameter when it is moved to a device; both are done here.

References:
    Dettmers et al., LLM.int8, https://arxiv.org/abs/2208.07339.
    Dettmers et al., QLoRA, https://arxiv.org/abs/2305.14314.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.strategies.bitsandbytes import backend
from pah_opt.strategies.bitsandbytes.fourbit import NESTED_BLOCK, rounded

if TYPE_CHECKING:
    from pah_opt.strategies.bitsandbytes.config import BitsandbytesConfig

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class LayerKind:
    """What a layer must be made with, as JSON data.

    Args:
        scheme: ``int8``, ``nf4`` or ``fp4``.
        threshold: of outliers, for int8.
        blocksize: weights that share a scale, for four bits.
        double_quant: whether scales are quantized too.
        compute_dtype: short name of the type of products; None for the weight's own.
    """

    scheme: str
    threshold: float
    blocksize: int
    double_quant: bool
    compute_dtype: str | None

    @classmethod
    def of(cls, config: BitsandbytesConfig) -> LayerKind:
        """Read it from a config."""
        return cls(
            config.scheme, config.used_threshold, config.used_blocksize, bool(config.double_quant), config.compute_dtype
        )

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)


def empty(layer: nn.Linear, kind: LayerKind) -> Any:
    """Return a layer of bitsandbytes with the bias of ``layer`` and a weight that is not quantized yet."""
    bnb = backend.load("bitsandbytes.nn")
    shape = (layer.in_features, layer.out_features)
    bias, has_bias = layer.bias, layer.bias is not None
    if kind.scheme == "int8":
        made = bnb.Linear8bitLt(
            *shape, bias=has_bias, has_fp16_weights=False, threshold=kind.threshold, device="meta"
        )  # fmt: skip
    else:
        dtype = layer.weight.dtype if kind.compute_dtype is None else TYPES[kind.compute_dtype]
        made = bnb.Linear4bit(
            *shape, bias=has_bias, compute_dtype=dtype, compress_statistics=kind.double_quant,
            quant_type=kind.scheme, device="meta",
        )  # fmt: skip
        # On CPUs with AVX-512 BF16 the first forward pass would repack the weight for a bfloat16 kernel, in place:
        # scales lose bits, double quantization is undone, and layers whose outputs 32 does not divide fail.
        made.support_avx512bf16_for_cpu = False
        if has_bias:  # it would cast the bias, too
            bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
    made.bias = bias
    return made.requires_grad_(requires_grad=False).train(layer.training)


def takes_repair(layer: nn.Linear, kind: LayerKind) -> bool:
    """Tell whether rounding errors can be made up for: with four bits, where blocks do not reach over a row's end."""
    return kind.scheme != "int8" and layer.in_features % kind.blocksize == 0


def repaired(layer: nn.Linear, kind: LayerKind, second_moment: Tensor) -> nn.Module:
    """Return a four-bit layer whose later weights make up for the rounding errors of earlier ones.

    Args:
        layer: one that :func:`takes_repair`.
        kind: of layer to make.
        second_moment: of the layer's inputs, ``(in, in)``.
    """
    made = empty(layer, kind)
    packed, state = rounded(layer.weight.detach(), second_moment, kind)
    made.weight = _four_bit(packed, state, made, kind)
    return made  # type: ignore[no-any-return]  # bitsandbytes publishes no types for strict checking


def _four_bit(packed: Tensor, state: Any, made: Any, kind: LayerKind) -> Any:
    """Return a parameter of four-bit values that are there already."""
    made.quant_state = state
    return backend.load("bitsandbytes.nn").Params4bit(
        packed, requires_grad=False, quant_state=state, blocksize=kind.blocksize,
        compress_statistics=kind.double_quant, quant_type=kind.scheme, module=made, bnb_quantized=True,
    )  # fmt: skip


def quantized(layer: nn.Linear, kind: LayerKind) -> nn.Module:
    """Return a layer of bitsandbytes with the quantized weight of ``layer``, on its device."""
    weight = layer.weight.detach()
    made = empty(layer, kind)
    if weight.is_meta:
        made.weight = _planned(weight, made, kind)
        return made  # type: ignore[no-any-return]  # bitsandbytes publishes no types for strict checking
    bnb = backend.load("bitsandbytes.nn")
    # int8 is only quantized on the way from the CPU; four bits on the way to any device, its own too.
    if kind.scheme == "int8":
        parameter = bnb.Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=False)
    else:
        parameter = bnb.Params4bit(
            weight, requires_grad=False, blocksize=kind.blocksize, compress_statistics=kind.double_quant,
            quant_type=kind.scheme, module=made,
        )  # fmt: skip
    made.weight = parameter.to(weight.device)
    return made  # type: ignore[no-any-return]  # likewise


def _planned(weight: Tensor, made: Any, kind: LayerKind) -> Any:
    """Return a parameter without values of the size that quantization will give."""
    if kind.scheme == "int8":
        data = torch.empty_like(weight, dtype=torch.int8)
        return backend.load("bitsandbytes.nn").Int8Params(
            data, requires_grad=False, has_fp16_weights=False, SCB=_floats(len(weight))
        )
    data = torch.empty((-(-weight.numel() // 2), 1), dtype=torch.uint8, device="meta")
    return _four_bit(data, _planned_state(weight, kind), made, kind)


def _planned_state(weight: Tensor, kind: LayerKind) -> Any:
    quant_state = backend.load("bitsandbytes.functional").QuantState
    blocks = -(-weight.numel() // kind.blocksize)
    nested = None
    if kind.double_quant:
        nested = quant_state(
            absmax=_floats(math.ceil(blocks / NESTED_BLOCK)), code=_floats(256), blocksize=NESTED_BLOCK,
            dtype=torch.float32,
        )  # fmt: skip
    absmax = torch.empty(blocks, dtype=torch.uint8, device="meta") if kind.double_quant else _floats(blocks)
    return quant_state(
        absmax=absmax, shape=weight.shape, code=_floats(16), blocksize=kind.blocksize, quant_type=kind.scheme,
        dtype=weight.dtype, offset=_floats() if kind.double_quant else None, state2=nested,
    )  # fmt: skip


def _floats(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device="meta")
