"""Lossless encodings of one plain tensor: zeros cost a bit each or less, small integers half a byte.

An encoding is a small tree. ``Dense`` is the tensor itself. ``Bitmask`` keeps one bit per element and the values that
are not zero; both parts are encoded in turn, so that the mask of a very sparse tensor shrinks as well. ``Nibbles``
packs integers of four bits in pairs. Minus zero counts as zero (masking by multiplication leaves it behind), so a
bitmask turns it into plus zero; every other value, NaN included, survives bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from pah_opt.errors import ArtifactError
from pah_opt.storage.dtypes import DTYPES, INTEGERS, MAGNITUDE_BITS, dtype_name, known_dtype, nbytes_of

SAVING_BYTES = 1024
"""An encoding must save this much: more than the names of its parts take in the file's header and index."""


NIBBLE_RANGES = {"I8": (-8, 7), "U8": (0, 15)}
"""Smallest and largest value of four bits, by type."""
SAMPLE = 8192
"""Elements that are looked at first, so that most dense tensors are not read whole just to find out."""
BREAK_EVEN = 1 / 16
"""A mask pays from twice this share of zeros on, divided by the bytes of an element; a sample may be off by half."""


class Entry(NamedTuple):
    """One tensor in a safetensors file: its name, type name and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return nbytes_of(DTYPES[self.dtype], self.shape)


DtypeName = Annotated[str, AfterValidator(known_dtype)]
Shape = tuple[Annotated[int, Field(ge=0, lt=2**48)], ...]
Read = Callable[[Entry], Tensor]
"""Gives the tensor of an entry."""


@dataclass(frozen=True)
class Dense:
    """The tensor as it is."""

    dtype: DtypeName
    shape: Shape
    kind: Literal["dense"] = "dense"

    def entries(self, name: str) -> list[Entry]:
        """List the entries in the file."""
        return [Entry(name, self.dtype, self.shape)]

    def encode(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the content of each entry, in the order of :meth:`entries`."""
        yield name, tensor

    def decode(self, name: str, read: Read) -> Tensor:
        """Read the tensor back."""
        return read(Entry(name, self.dtype, self.shape))


@dataclass(frozen=True)
class Nibbles:
    """Two integers of four bits a byte, the first in the low half; signed for int8, unsigned for uint8."""

    dtype: Annotated[str, Field(pattern="^(I8|U8)$")]
    shape: Shape
    kind: Literal["nibbles"] = "nibbles"

    def entries(self, name: str) -> list[Entry]:
        """List the entries in the file."""
        return [Entry(f"{name}.nibbles", "U8", ((math.prod(self.shape) + 1) // 2,))]

    def encode(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the packed bytes."""
        flat = torch.nn.functional.pad(integers(tensor), (0, tensor.numel() % 2))
        yield f"{name}.nibbles", (flat[0::2] & 15) | (flat[1::2] << 4)

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

    dtype: DtypeName
    shape: Shape
    mask: Encoding
    values: Encoding
    kind: Literal["bitmask"] = "bitmask"

    def __post_init__(self) -> None:
        bits = 8 * math.prod(self.mask.shape)
        if self.mask.dtype != "U8" or self.values.dtype != self.dtype or bits < math.prod(self.shape):
            raise ValueError("a mask or values that do not fit the tensor")

    def entries(self, name: str) -> list[Entry]:
        """List the entries in the file."""
        return self.mask.entries(f"{name}.mask") + self.values.entries(f"{name}.values")

    def encode(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the mask's entries, then those of the values."""
        kept = nonzero(tensor)
        yield from self.mask.encode(f"{name}.mask", pack_bits(kept))
        flat = integers(tensor)
        values = torch.empty(self.values.shape, dtype=flat.dtype, device="cpu")
        # NumPy does this seven times as fast as torch indexes with booleans on a CPU.
        np.compress(kept.numpy(), flat.numpy(), out=values.numpy())
        yield from self.values.encode(f"{name}.values", values.view(tensor.dtype))

    def decode(self, name: str, read: Read) -> Tensor:
        """Read both parts and put the values where the mask says."""
        kept = unpack_bits(self.mask.decode(f"{name}.mask", read), math.prod(self.shape))
        values = self.values.decode(f"{name}.values", read)
        if int(torch.count_nonzero(kept)) != values.numel():
            raise ArtifactError(f"the mask of {name!r} does not fit its {values.numel()} values")
        flat = torch.zeros(kept.numel(), dtype=INTEGERS[values.itemsize], device="cpu")
        np.place(flat.numpy(), kept.numpy(), values.view(flat.dtype).numpy())
        return flat.view(values.dtype).view(self.shape)


Encoding = Annotated[Dense | Bitmask | Nibbles, Field(discriminator="kind")]


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
    if tensor.is_meta or name not in NIBBLE_RANGES or tensor.numel() // 2 < SAVING_BYTES:
        return dense
    fits = _within(sample(tensor), *NIBBLE_RANGES[name]) and _within(tensor.detach(), *NIBBLE_RANGES[name])
    return Nibbles(name, shape) if fits else dense


def _within(tensor: Tensor, low: int, high: int) -> bool:
    smallest, largest = torch.aminmax(tensor)
    return bool(smallest >= low and largest <= high)


def _masked(tensor: Tensor, plain: Dense | Nibbles) -> Bitmask | None:
    """Return a bitmask encoding when it is smaller than ``plain``."""
    found = nonzero(sample(tensor))
    zeros = 1 - int(torch.count_nonzero(found)) / found.numel()
    if zeros < BREAK_EVEN * tensor.numel() / plain_bytes(plain):
        return None
    kept = nonzero(tensor)
    count = int(torch.count_nonzero(kept))
    values = type(plain)(plain.dtype, (count,))
    limit = plain_bytes(plain) - plain_bytes(values) - SAVING_BYTES
    if limit <= 0:
        return None
    mask = choose(pack_bits(kept))
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


def sample(tensor: Tensor) -> Tensor:
    """Return elements from all over a tensor, evenly spaced: of every row and column alike, whatever was pruned."""
    flat = tensor.detach().reshape(-1)
    step = max(1, flat.numel() // SAMPLE)
    while math.gcd(step, flat.numel()) > 1:
        step += 1
    return flat[::step]


def nonzero(tensor: Tensor) -> Tensor:
    """Tell for each element, flat on the CPU, whether it is anything but zero or minus zero.

    Bits are looked at, because comparing floats takes subnormal numbers for zeros where the processor flushes them.
    """
    flat = integers(tensor).numpy()
    found = (flat & MAGNITUDE_BITS[tensor.dtype] if tensor.dtype in MAGNITUDE_BITS else flat) != 0
    return torch.from_numpy(found)


def pack_bits(flags: Tensor) -> Tensor:
    """Pack booleans, eight a byte, the first in the lowest bit; whole groups of 64, so that what follows is aligned."""
    packed = np.packbits(flags.numpy(), bitorder="little")
    return torch.from_numpy(np.pad(packed, (0, -len(packed) % 8)))


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """Undo :func:`pack_bits`; returns ``count`` booleans."""
    bits = np.unpackbits(packed.cpu().numpy(), count=count, bitorder="little")
    return torch.from_numpy(bits).view(torch.bool).to(packed.device)
