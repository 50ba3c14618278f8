"""Names of tensor types in safetensors files."""

from __future__ import annotations

import math

import torch

from pah_opt.errors import ArtifactError

DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
}
"""Every type that can be stored, by its name in the file."""

NAMES = {dtype: name for name, dtype in DTYPES.items()}
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer type of each item size: equal bits compare equal, which floats do not (NaN, minus zero)."""

MAGNITUDE_BITS = {
    torch.float8_e4m3fn: 0x7F,
    torch.float8_e5m2: 0x7F,
    torch.float16: 0x7FFF,
    torch.bfloat16: 0x7FFF,
    torch.float32: 0x7FFF_FFFF,
    torch.float64: 0x7FFF_FFFF_FFFF_FFFF,
}
"""All bits but the sign, for types that have a minus zero."""


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of ``dtype`` in a file.

    Raises:
        ArtifactError: the type cannot be stored.
    """
    if dtype not in NAMES:
        raise ArtifactError(f"tensors of type {dtype} cannot be stored; types that can: {', '.join(DTYPES)}")
    return NAMES[dtype]


def nbytes_of(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    """Return the bytes of a dense tensor."""
    return math.prod(shape) * dtype.itemsize


def known_dtype(name: str) -> str:
    """Return ``name`` if it is the name of a type that can be stored.

    Raises:
        ValueError: it is not.
    """
    if name not in DTYPES:
        raise ValueError(f"{name!r} is not one of {', '.join(DTYPES)}")
    return name
