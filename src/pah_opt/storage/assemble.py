"""Put leaves together again into the tensor that a module held."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pah_opt.errors import ArtifactError
from pah_opt.storage.attributes import from_json
from pah_opt.storage.backends import torchao_types

if TYPE_CHECKING:
    from pah_opt.storage.index import Quantized
    from pah_opt.storage.leaves import Held

Leaves = Mapping[str, Tensor]


def assemble(held: Held, described: Quantized, leaves: Leaves) -> Tensor:
    """Make the quantized tensor that takes the place of ``held.tensor``.

    Args:
        held: where it goes: a module that was rebuilt, its tensor without values.
        described: what the file says about it.
        leaves: its parts by name, on the target device.

    Raises:
        ArtifactError: the parts do not make such a tensor, or it does not fit the module.
    """
    makers = {"torchao": _torchao, "bnb-int8": _bnb_int8, "bnb-4bit": _bnb_4bit}
    if described.kind not in makers:
        raise ArtifactError(f"{held.path} is stored as {described.kind!r}; this version knows {', '.join(makers)}")
    attributes = {name: from_json(value) for name, value in described.attributes.items()}
    try:
        return makers[described.kind](held, described.type, leaves, attributes)
    except (ArtifactError, ImportError):
        raise
    except Exception as error:  # a constructor of another library may raise anything
        raise ArtifactError(f"{held.path} cannot be made from its parts ({type(error).__name__}: {error})") from error


def _torchao(held: Held, type_name: str, leaves: Leaves, attributes: dict[str, Any]) -> Tensor:
    tensor_type = torchao_types(Tensor)[type_name]
    tensor: Tensor = tensor_type.__tensor_unflatten__(dict(leaves), attributes, None, None)
    _check_shape(held, tuple(tensor.shape))
    return nn.Parameter(tensor, requires_grad=False) if isinstance(held.tensor, nn.Parameter) else tensor


def _bnb_int8(held: Held, _: str, leaves: Leaves, attributes: dict[str, Any]) -> Tensor:
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    data, scales = leaves["data"], leaves["scales"]
    _check_layer(held, Linear8bitLt)
    _check_shape(held, tuple(data.shape))
    if scales.numel() != data.shape[0] or attributes:
        raise ArtifactError(f"{held.path} has {scales.numel()} scales for {data.shape[0]} rows")
    tensor: Tensor = Int8Params(data, requires_grad=False, has_fp16_weights=False, CB=data, SCB=scales)
    return tensor


def _bnb_4bit(held: Held, _: str, leaves: Leaves, attributes: dict[str, Any]) -> Tensor:
    from bitsandbytes.functional import QuantState
    from bitsandbytes.nn import Linear4bit, Params4bit

    layer: Any = held.module
    _check_layer(held, Linear4bit)
    _check_shape(held, attributes["shape"])
    _check_blocks(held, leaves, attributes)
    data, state = leaves["data"], QuantState(**_quant_state(leaves, attributes, QuantState))
    layer.quant_state = state
    tensor: Tensor = Params4bit(
        data,
        requires_grad=False,
        quant_state=state,
        blocksize=state.blocksize,
        compress_statistics=state.nested,
        quant_type=state.quant_type,
        quant_storage=data.dtype,
        module=layer,
        bnb_quantized=True,
    )
    return tensor


def _quant_state(leaves: Leaves, attributes: dict[str, Any], state_type: type) -> dict[str, Any]:
    nested = None
    if "nested_absmax" in leaves:
        nested = state_type(
            absmax=leaves["nested_absmax"],
            code=leaves["nested_code"],
            blocksize=attributes["nested_blocksize"],
            dtype=attributes["nested_dtype"],
        )
    absmax = leaves["absmax"]
    return {
        # Scales of weights that a CPU had laid out its own way were rounded to bfloat16 then, and are kept so.
        "absmax": absmax if nested else absmax.float(),
        "code": leaves["code"],
        "shape": attributes["shape"],
        "blocksize": attributes["blocksize"],
        "quant_type": attributes["quant_type"],
        "dtype": attributes["dtype"],
        "offset": leaves.get("offset"),
        "state2": nested,
    }


def _check_blocks(held: Held, leaves: Leaves, attributes: dict[str, Any]) -> None:
    """Check sizes that compiled kernels trust."""
    weights, block = math.prod(attributes["shape"]), attributes["blocksize"]
    nested = leaves.get("nested_absmax")
    fits = (
        leaves["data"].nbytes * 2 == weights + weights % 2
        and leaves["absmax"].numel() == -(-weights // block)
        and leaves["code"].numel() == 16
        and (nested is None or nested.numel() == -(-leaves["absmax"].numel() // attributes["nested_blocksize"]))
        and (nested is None or leaves["nested_code"].numel() == 256)
    )
    if not fits:
        raise ArtifactError(f"the parts of {held.path} do not fit one another")


def _check_layer(held: Held, layer: type) -> None:
    if not isinstance(held.module, layer):
        raise ArtifactError(
            f"{held.path} is stored for a {layer.__name__} and its layer is a {type(held.module).__name__}"
        )


def _check_shape(held: Held, shape: tuple[int, ...]) -> None:
    if tuple(shape) != tuple(held.tensor.shape):
        raise ArtifactError(f"{held.path} has shape {tuple(shape)} and the model needs {tuple(held.tensor.shape)}")
