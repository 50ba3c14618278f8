"""bitsandbytes parameters taken apart and put together: their scales live beside the tensor, not in it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from pah_opt.errors import ArtifactError
from pah_opt.storage.attributes import to_json
from pah_opt.storage.leaves import Held, Parts

if TYPE_CHECKING:
    from torch import Tensor


def take_apart_bnb(held: Held) -> Parts:
    """Take a bitsandbytes parameter apart.

    Raises:
        ArtifactError: it is not quantized yet, or of a type that cannot be stored.
    """
    kind = type(held.tensor).__name__
    if kind == "Int8Params":
        return _int8(held)
    if kind == "Params4bit" and getattr(held.tensor, "quant_state", None) is not None:
        return _four_bit(held.tensor)
    raise ArtifactError(
        f"{held.path} is a bitsandbytes {kind} that is not quantized yet; move the model to its device first"
    )


def _int8(held: Held) -> Parts:
    tensor: Any = held.tensor
    layer: Any = held.module
    if tensor.has_fp16_weights:
        raise ArtifactError(
            f"{held.path} keeps 16-bit weights for training; build its layer with has_fp16_weights=False"
        )
    # The first forward pass moves the scales from the parameter to the layer's state.
    scales = tensor.SCB if tensor.SCB is not None else layer.state.SCB
    if scales is None:
        raise ArtifactError(f"{held.path} is not quantized yet; move the model to its device first")
    return Parts("bnb-int8", {"data": tensor.data, "scales": scales})


def _four_bit(tensor: Any) -> Parts:
    data, state = _row_major(tensor)
    leaves = {"data": data, "absmax": state.absmax, "code": state.code}
    attributes = {
        "quant_type": state.quant_type,
        "blocksize": state.blocksize,
        "dtype": state.dtype,
        "shape": tuple(state.shape),
    }
    if state.nested:
        leaves |= {"offset": state.offset, "nested_absmax": state.state2.absmax, "nested_code": state.state2.code}
        attributes |= {"nested_blocksize": state.state2.blocksize, "nested_dtype": state.state2.dtype}
    encoded = {name: to_json(value) for name, value in attributes.items()}
    return Parts("bnb-4bit", {name: leaf.detach() for name, leaf in leaves.items()}, attributes=encoded)


def _row_major(tensor: Any) -> tuple[Tensor, Any]:
    """Undo the layout that the first forward pass on a CPU with AVX-512 BF16 changes weights to, on copies.

    bitsandbytes' own inverse quantizes the block scales again, which loses bits; the scales are kept here as they are,
    so that the next forward pass makes the very same layout again.
    """
    state = copy.copy(tensor.quant_state)
    if not getattr(state, "packing_format_for_cpu", False):
        return tensor.data, state
    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse

    state.original_nested = False
    data, state = _convert_weight_packed_for_cpu_inverse(tensor.data, state)
    state.absmax = state.absmax.T.reshape(-1).contiguous()
    state.nested = False
    return data, state
