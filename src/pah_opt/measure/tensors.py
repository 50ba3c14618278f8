"""What tensors really hold: bytes, logical elements, zeros and storage types, through every kind of packing.

``numel * element_size`` is wrong for tensor subclasses (torchao) and for packed weights (bitsandbytes keeps two 4-bit
values a byte and its scales outside the parameter), so both are looked into here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT_NAMES = {
    torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16",
    torch.int8: "int8", torch.uint8: "uint8", torch.qint8: "int8",
}  # fmt: skip
"""Names of storage types as state tags write them."""


def inner_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the plain tensors that a (possibly nested) tensor subclass is made of; a plain tensor yields itself."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        yield from inner_tensors(getattr(tensor, name))


def held_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield every plain tensor a model holds once: parameters, buffers, and what quantization keeps beside them."""
    seen: set[Any] = set()
    for tensor in _all_tensors(model):
        for inner in inner_tensors(tensor):
            key = _identity(inner)
            if key not in seen:
                seen.add(key)
                yield inner


def tensor_bytes(model: nn.Module) -> int:
    """Return the bytes of all tensors of a model in memory, shared ones once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in held_tensors(model))


def _all_tensors(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        yield from own
        holders: tuple[nn.Module | Tensor, ...] = (module, *own)
        for holder in holders:
            yield from _quantization_tensors(holder)


def _quantization_tensors(holder: nn.Module | Tensor) -> Iterator[Tensor]:
    # bitsandbytes keeps scales in Int8Params.SCB, Params4bit.quant_state and Linear8bitLt.state: not parameters, not
    # buffers. state_dict() would list them, but unpacks CPU weights in passing, which slows the next forward pass.
    if not is_from("bitsandbytes", holder):
        return
    values = vars(holder)
    for name in ("CB", "SCB", "quant_state", "state"):
        yield from _tensors_in(values.get(name))


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif is_from("bitsandbytes", value):
        for inner in vars(value).values():
            yield from _tensors_in(inner)


def is_from(library: str, thing: object) -> bool:
    """Tell whether the class of ``thing`` is defined in ``library``."""
    return type(thing).__module__.partition(".")[0] == library


def _identity(tensor: Tensor) -> Any:
    if tensor.device.type == "meta" or not tensor.numel():
        return id(tensor)
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride() if tensor.layout == torch.strided else None


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return every linear layer, quantized or not, by path: modules with a width in and out and no children."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(getattr(module, "in_features", None), int)
        and isinstance(getattr(module, "out_features", None), int)
        and not any(True for _ in module.children())
    }


def linear_shape(module: nn.Module) -> tuple[int, int]:
    """Return ``(out_features, in_features)`` of a linear layer."""
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.ndim == 2 and not is_packed(weight):
        return int(weight.shape[0]), int(weight.shape[1])
    out, into = module.out_features, module.in_features
    return int(out), int(into)  # type: ignore[arg-type]  # checked by linear_layers


def is_packed(weight: Any) -> bool:
    """Tell whether the shape of ``weight`` says nothing about the layer: several values share one element."""
    return not isinstance(weight, Tensor) or (type(weight).__name__ == "Params4bit" and not weight.is_floating_point())


def is_plain(weight: Any) -> bool:
    """Tell whether ``weight`` is an ordinary floating-point parameter that dense kernels multiply with."""
    return (
        isinstance(weight, Tensor)
        and weight.is_floating_point()
        and not hasattr(weight, "__tensor_flatten__")
        and not is_from("bitsandbytes", weight)
    )


def storage_type(weight: Any) -> str:
    """Name the type in which a weight is stored, such as ``fp32``, ``bf16``, ``int8``, ``int4``, ``fp8``, ``nf4``."""
    if callable(weight):  # torch.ao.nn.quantized modules keep their weight behind a method
        weight = weight()
    kind = type(weight).__name__
    if kind == "Params4bit" and not weight.is_floating_point():
        return str(weight.quant_type)
    if "SemiStructured" in kind:
        return "2:4"
    return _declared_type(weight) or _dtype_name(max(inner_tensors(weight), key=torch.numel).dtype)


def _declared_type(weight: Tensor) -> str | None:
    # torchao: IntxUnpackedToInt8Tensor.target_dtype, IntxOpaqueTensor.bit_width, Int4Tensor, Float8Tensor, NF4Tensor.
    if not hasattr(weight, "__tensor_flatten__"):
        return None
    if isinstance(target := getattr(weight, "target_dtype", None), torch.dtype):
        return _dtype_name(target)
    if isinstance(bits := getattr(weight, "bit_width", None), int):
        return f"int{bits}"
    match = re.search(r"(Int|UInt|Float|NF|MX)(\d+)", type(weight).__name__)
    return None if match is None else match.group(1).lower().replace("float", "fp") + match.group(2)


def _dtype_name(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return SHORT_NAMES.get(dtype) or ("fp8" if name.startswith("float8") else name)


def dense_values(weight: Tensor) -> Tensor:
    """Return the values a weight stands for, as a plain tensor of its logical shape (or its packed quantized codes)."""
    if hasattr(weight, "__tensor_flatten__"):
        has_own = type(weight).dequantize is not Tensor.dequantize
        return weight.dequantize() if has_own else weight.to_dense()
    if type(weight).__name__ == "Params4bit" and not weight.is_floating_point():
        return _dequantize_4bit(weight)
    return weight


def _dequantize_4bit(weight: Any) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit

    values: Tensor = dequantize_4bit(weight.data, weight.quant_state)
    return values


@torch.no_grad()
def count_nonzero(weight: Tensor) -> int:
    """Return how many logical values of a weight are not zero."""
    values = dense_values(weight)
    if values.dtype.is_floating_point and values.element_size() == 1:
        values = values.float()  # 8-bit floats have no comparison kernels
    return int(torch.count_nonzero(values))
