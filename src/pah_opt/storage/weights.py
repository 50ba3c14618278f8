"""The one safetensors file that holds a model's tensors: which entries it has, and the index that explains them.

The file is an ordinary safetensors file. A plain dense tensor is an entry under its own name; whatever is encoded,
shared or quantized is described in the index, JSON data in the file's metadata under ``pah_opt``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pah_opt.storage.encoding import Dense, Encoding, Entry, choose
from pah_opt.storage.leaves import Held, Parts, held_tensors, take_apart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

ALIGNMENT = 64
"""Data and large tensors start at multiples of this, so that they can be mapped into memory and used in place."""
INDEX_KEY = "pah_opt"


@dataclass(frozen=True)
class Leaf:
    """One plain tensor and how it is encoded."""

    name: str
    tensor: Tensor
    encoding: Encoding


@dataclass(frozen=True)
class Weights:
    """Everything a model's file will hold, before a byte of it is written.

    Args:
        leaves: plain tensors, each once.
        index: what a reader needs besides the entries, as JSON data.
    """

    leaves: tuple[Leaf, ...]
    index: Mapping[str, Any]

    @classmethod
    def of(cls, model: nn.Module) -> Weights:
        """Look through a model, choosing the encoding of every tensor; no tensor is copied or kept.

        Raises:
            ArtifactError: a tensor cannot be stored; names it.
        """
        return _Collector().collect(model)

    def entries(self) -> list[Entry]:
        """List the file's entries in the order of their data: large and evenly sized ones first, so that they align."""
        entries = [entry for leaf in self.leaves for entry in leaf.encoding.entries(leaf.name)]
        return sorted(entries, key=lambda e: (e.nbytes % ALIGNMENT != 0, -_item_alignment(e), e.name))

    def header(self) -> bytes:
        """Return what the file holds before the data: the length of the header, and the header, padded."""
        return header_bytes(self.entries(), {INDEX_KEY: json.dumps(self.index, separators=(",", ":"), sort_keys=True)})


def _item_alignment(entry: Entry) -> int:
    return entry.nbytes & -entry.nbytes if entry.nbytes % ALIGNMENT else ALIGNMENT


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
        self._quantized: dict[str, Any] = {}
        self._shared: dict[str, str] = {}
        self._parts: dict[str, str] = {}
        self._encodings: dict[str, Any] = {}

    def collect(self, model: nn.Module) -> Weights:
        for held in held_tensors(model):
            self._add(held)
        index = {
            "quantized": self._quantized,
            "shared": self._shared,
            "parts": self._parts,
            "encodings": self._encodings,
        }
        return Weights(tuple(self._leaves), {key: value for key, value in index.items() if value})

    def _add(self, held: Held) -> None:
        first = self._names_of_tensors.setdefault(id(held.tensor), held.path)
        if first != held.path:
            self._shared[held.path] = first
            return
        parts = take_apart(held)
        if parts.kind != "plain":
            self._quantized[held.path] = _described(parts)
        for suffix, tensor in parts.leaves.items():
            self._add_leaf(f"{held.path}.{suffix}" if suffix else held.path, tensor)

    def _add_leaf(self, name: str, tensor: Tensor) -> None:
        first = self._names_of_memory.setdefault(_memory(tensor, name), name)
        if first != name:
            self._parts[name] = first
            return
        encoding = choose(tensor)
        self._leaves.append(Leaf(name, tensor, encoding))
        if not isinstance(encoding, Dense):
            self._encodings[name] = encoding.to_json()


def _described(parts: Parts) -> dict[str, Any]:
    return {"kind": parts.kind, "parts": list(parts.leaves), **parts.attributes}


def _memory(tensor: Tensor, name: str) -> tuple[Any, ...]:
    """Return a key that two tensors share only if they are the same memory seen the same way."""
    if tensor.is_meta or tensor.numel() == 0:
        return (name,)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
