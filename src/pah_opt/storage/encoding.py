"""Lossless encodings of one plain tensor: zeros cost a bit each or less, small integers half a byte.

An encoding is a small tree. ``Dense`` is the tensor itself. ``Bitmask`` keeps one bit per element and the values that
are not zero; both parts are encoded in turn, so that the mask of a very sparse tensor shrinks as well. ``Nibbles``
packs integers of four bits in pairs. Bits are compared, not numbers: NaN and minus zero survive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pah_opt.errors import ArtifactError
from pah_opt.storage.dtypes import DTYPES, INTEGERS, dtype_name, nbytes_of

SAVING_BYTES = 1024
"""An encoding must save this much: more than the names of its parts take in the file's header and index."""


class Entry(NamedTuple):
    """One tensor in a safetensors file: its name, type name and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return nbytes_of(DTYPES[self.dtype], self.shape)


Read = Callable[[Entry], Tensor]
"""Gives the tensor of an entry."""


@dataclass(frozen=True)
class Dense:
    """The tensor as it is."""

    dtype: str
    shape: tuple[int, ...]

    def entries(self, name: str) -> list[Entry]:
        """List the entries in the file."""
        return [Entry(name, self.dtype, self.shape)]

    def encode(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the content of each entry, in the order of :meth:`entries`."""
        yield name, tensor

    def to_json(self) -> dict[str, Any]:
        """Describe the encoding for the index."""
        return {"kind": "dense", "dtype": self.dtype, "shape": list(self.shape)}

    def decode(self, name: str, read: Read) -> Tensor:
        """Read the tensor back."""
        return read(Entry(name, self.dtype, self.shape))


@dataclass(frozen=True)
class Nibbles:
    """Two integers of four bits a byte, the first in the low half; signed for int8, unsigned for uint8."""

    dtype: str
    shape: tuple[int, ...]

    def entries(self, name: str) -> list[Entry]:
        """List the entries in the file."""
        return [Entry(f"{name}.nibbles", "U8", ((math.prod(self.shape) + 1) // 2,))]

    def encode(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the packed bytes."""
        flat = torch.nn.functional.pad(integers(tensor), (0, tensor.numel() % 2))
        yield f"{name}.nibbles", (flat[0::2] & 15) | (flat[1::2] << 4)

    def to_json(self) -> dict[str, Any]:
        """Describe the encoding for the index."""
        return {"kind": "nibbles", "dtype": self.dtype, "shape": list(self.shape)}

    def decode(self, name: str, read: Read) -> Tensor:
        """Read and unpack."""
        packed = read(self.entries(name)[0])
        pairs = torch.empty((packed.numel(), 2), dtype=DTYPES[self.dtype], device=packed.device)
        halves = packed.view(pairs.dtype)  # shifting a signed type right keeps the sign
        torch.bitwise_right_shift(torch.bitwise_left_shift(halves, 4), 4, out=pairs[:, 0])
        torch.bitwise_right_shift(halves, 4, out=pairs[:, 1])
        return pairs.view(-1)[: math.prod(self.shape)].view(self.shape)


@dataclass(frozen=True)
class Bitmask:
    """One bit per element says whether it is in ``values``; the first element has the lowest bit of the first byte."""

    dtype: str
    shape: tuple[int, ...]
    mask: Encoding
    values: Encoding

    def entries(self, name: str) -> list[Entry]:
        """List the entries in the file."""
        return self.mask.entries(f"{name}.mask") + self.values.entries(f"{name}.values")

    def encode(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the mask's entries, then those of the values."""
        flat = integers(tensor)
        kept = flat != 0
        yield from self.mask.encode(f"{name}.mask", pack_bits(kept))
        yield from self.values.encode(f"{name}.values", flat[kept].view(tensor.dtype))

    def to_json(self) -> dict[str, Any]:
        """Describe the encoding for the index."""
        parts = {"mask": self.mask.to_json(), "values": self.values.to_json()}
        return {"kind": "bitmask", "dtype": self.dtype, "shape": list(self.shape), **parts}

    def decode(self, name: str, read: Read) -> Tensor:
        """Read both parts and put the values where the mask says."""
        kept = unpack_bits(self.mask.decode(f"{name}.mask", read), math.prod(self.shape))
        values = self.values.decode(f"{name}.values", read)
        if int(torch.count_nonzero(kept)) != values.numel():
            raise ArtifactError(f"the mask of {name!r} does not fit its {values.numel()} values")
        flat = torch.zeros(kept.numel(), dtype=INTEGERS[values.itemsize], device=kept.device)
        flat.masked_scatter_(kept, values.view(flat.dtype))
        return flat.view(values.dtype).view(self.shape)


Encoding = Dense | Bitmask | Nibbles


def choose(tensor: Tensor) -> Encoding:
    """Return the encoding that takes the fewest bytes; tensors without values (``meta``) are dense.

    Raises:
        ArtifactError: the type of the tensor cannot be stored.
    """
    shape, name = tuple(tensor.shape), dtype_name(tensor.dtype)
    plain = _plain(tensor, name, shape)
    if tensor.is_meta or plain_bytes(plain) <= SAVING_BYTES:
        return plain
    masked = _masked(tensor, plain)
    return masked if masked is not None else plain


def _plain(tensor: Tensor, name: str, shape: tuple[int, ...]) -> Dense | Nibbles:
    dense = Dense(name, shape)
    if tensor.is_meta or name not in ("I8", "U8") or tensor.numel() // 2 < SAVING_BYTES:
        return dense
    low, high = torch.aminmax(tensor.detach())
    return (
        Nibbles(name, shape) if (low >= -8 and high <= 7 and name == "I8") or (high <= 15 and name == "U8") else dense
    )


def _masked(tensor: Tensor, plain: Dense | Nibbles) -> Bitmask | None:
    """Return a bitmask encoding when it is smaller than ``plain``."""
    flat = integers(tensor)
    count = int(torch.count_nonzero(flat))
    values = type(plain)(plain.dtype, (count,))
    limit = plain_bytes(plain) - plain_bytes(values) - SAVING_BYTES
    if limit <= 0:
        return None
    mask = choose(pack_bits(flat != 0))
    return Bitmask(plain.dtype, plain.shape, mask, values) if encoded_bytes(mask) <= limit else None


def plain_bytes(encoding: Dense | Nibbles) -> int:
    """Return the bytes of an encoding with one entry."""
    return encoding.entries("")[0].nbytes


def encoded_bytes(encoding: Encoding) -> int:
    """Return the bytes of all entries."""
    return sum(entry.nbytes for entry in encoding.entries(""))


def integers(tensor: Tensor) -> Tensor:
    """Return the bits of a tensor as flat integers on the CPU."""
    flat = tensor.detach().reshape(-1).contiguous()
    return flat.view(INTEGERS[tensor.itemsize]).cpu()


def pack_bits(flags: Tensor) -> Tensor:
    """Pack booleans, eight a byte, the first in the lowest bit."""
    return torch.from_numpy(np.packbits(flags.numpy(), bitorder="little"))


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """Undo :func:`pack_bits`; returns ``count`` booleans."""
    bits = np.unpackbits(packed.cpu().numpy(), count=count, bitorder="little")
    return torch.from_numpy(bits).view(torch.bool).to(packed.device)
