"""The one safetensors file that holds a model's tensors: which entries it has, and the index that explains them.

The file is an ordinary safetensors file. A plain dense tensor is an entry under its own name; whatever is encoded,
shared or quantized is described in the index, JSON data in the file's metadata under ``pah_opt``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pah_opt.storage.encoding import Dense, Encoding, Entry, choose
from pah_opt.storage.index import INDEX_KEY, Index, Quantized
from pah_opt.storage.leaves import Held, held_tensors, take_apart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

ALIGNMENT = 64
"""Data and large tensors start at multiples of this, so that they can be mapped into memory and used in place."""


@dataclass(frozen=True)
class Leaf:
    """One plain tensor and how it is encoded."""

    name: str
    tensor: Tensor
    encoding: Encoding

    @property
    def entries(self) -> list[Entry]:
        """The entries that hold it."""
        return self.encoding.entries(self.name)

    @property
    def alignment(self) -> int:
        """The power of two, at most :data:`ALIGNMENT`, that divides the size of each of its entries."""
        return min(math.gcd(entry.nbytes, ALIGNMENT) for entry in self.entries)


@dataclass(frozen=True)
class Weights:
    """Everything a model's file will hold, before a byte of it is written.

    Args:
        leaves: plain tensors, each once.
        index: what a reader needs besides the entries.
    """

    leaves: tuple[Leaf, ...]
    index: Index

    @classmethod
    def of(cls, model: nn.Module) -> Weights:
        """Look through a model, choosing the encoding of every tensor; no tensor is copied or kept.

        Raises:
            ArtifactError: a tensor cannot be stored; names it.
        """
        return _Collector().collect(model)

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Weights:
        """Take plain tensors by name.

        Raises:
            ArtifactError: one cannot be stored; names it.
        """
        collector = _Collector()
        for name, tensor in tensors.items():
            collector.add_leaf(name, tensor)
        return collector.weights()

    @property
    def entries(self) -> list[Entry]:
        """The file's entries, in the order of their data."""
        return [entry for leaf in self.leaves for entry in leaf.entries]

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return len(self.header()) + sum(entry.nbytes for entry in self.entries)

    def header(self) -> bytes:
        """Return what the file holds before the data: the length of the header, and the header, padded."""
        return header_bytes(self.entries, {INDEX_KEY: self.index.to_text()})


def header_bytes(entries: list[Entry], metadata: Mapping[str, str]) -> bytes:
    """Return the beginning of a safetensors file whose data are these entries, one after another."""
    described: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    for entry, start in zip(entries, _starts(entries), strict=True):
        described[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [start, start + entry.nbytes],
        }
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _starts(entries: list[Entry]) -> Iterator[int]:
    start = 0
    for entry in entries:
        yield start
        start += entry.nbytes


class _Collector:
    """Gathers leaves; a tensor that several names share, whole or as a part of a quantized one, is kept once."""

    def __init__(self) -> None:
        self._leaves: list[Leaf] = []
        self._names_of_tensors: dict[int, str] = {}
        self._names_of_memory: dict[tuple[Any, ...], str] = {}
        self._quantized: dict[str, Quantized] = {}
        self._shared: dict[str, str] = {}
        self._parts: dict[str, str] = {}
        self._encodings: dict[str, Encoding] = {}

    def collect(self, model: nn.Module) -> Weights:
        for held in held_tensors(model):
            self._add(held)
        return self.weights()

    def weights(self) -> Weights:
        index = Index(encodings=self._encodings, parts=self._parts, quantized=self._quantized, shared=self._shared)
        # What is evenly sized comes first: every entry then starts at a multiple of its own item size, at least.
        leaves = sorted(self._leaves, key=lambda leaf: -leaf.alignment)
        return Weights(tuple(leaves), index)

    def _add(self, held: Held) -> None:
        first = self._names_of_tensors.setdefault(id(held.tensor), held.path)
        if first != held.path:
            self._shared[held.path] = first
            return
        parts = take_apart(held)
        if parts.kind != "plain":
            self._quantized[held.path] = Quantized(
                kind=parts.kind, parts=tuple(parts.leaves), type=parts.type, attributes=dict(parts.attributes)
            )
        for suffix, tensor in parts.leaves.items():
            self.add_leaf(f"{held.path}.{suffix}" if suffix else held.path, tensor)

    def add_leaf(self, name: str, tensor: Tensor) -> None:
        first = self._names_of_memory.setdefault(_memory(tensor, name), name)
        if first != name:
            self._parts[name] = first
            return
        encoding = choose(tensor)
        self._leaves.append(Leaf(name, tensor, encoding))
        if not isinstance(encoding, Dense):
            self._encodings[name] = encoding


def _memory(tensor: Tensor, name: str) -> tuple[Any, ...]:
    """Return a key that two tensors share only if they are the same memory seen the same way."""
    if tensor.is_meta or tensor.numel() == 0:
        return (name,)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
