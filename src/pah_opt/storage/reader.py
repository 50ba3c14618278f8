"""Read tensors out of the bytes of a weights file whose checksum has been verified."""

from __future__ import annotations

import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pah_opt.errors import ArtifactError
from pah_opt.storage.dtypes import DTYPES, nbytes_of
from pah_opt.storage.encoding import Dense, Encoding, Entry
from pah_opt.storage.header import parse_header
from pah_opt.storage.index import INDEX_KEY, Index
from pah_opt.storage.weights import ALIGNMENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

MAPPED_BYTES = 2**16
"""Tensors from this size on are used where they are mapped; smaller ones are copied and hold no mapping."""
AHEAD_BYTES = 2**20
"""Leaves that decode to less are decoded when they are asked for: a thread new to torch costs more than they do."""


class WeightsReader:
    """The leaves of one weights file.

    Args:
        data: the file's content; writable, so that tensors in it can be (a private mapping never changes the file).
        name: the file's name, for messages.

    Raises:
        ArtifactError: the header or the index is malformed.
    """

    def __init__(self, data: mmap.mmap, name: str) -> None:
        self.name = name
        self._data = data
        header = parse_header(memoryview(data), name)
        self._starts = header.starts
        self.index = Index.from_text(header.metadata.get(INDEX_KEY, "{}"), name)
        self._encodings = {**_dense(header.starts, self.index.encodings), **self.index.encodings}
        self._common = set(self.index.parts.values())
        self._decoded: dict[str, Tensor] = {}
        self._ahead: dict[str, Future[Tensor]] = {}
        self._check_entries()

    @property
    def leaves(self) -> Mapping[str, Encoding]:
        """Every leaf and its encoding, before any of them is decoded."""
        return self._encodings

    def leaf(self, name: str) -> Tensor:
        """Decode one leaf on the CPU.

        Raises:
            ArtifactError: there is no such leaf, or its parts do not fit one another.
        """
        name = self.index.parts.get(name, name)
        if name not in self._encodings:
            raise ArtifactError(f"{self.name} holds no {name!r}")
        if name in self._ahead:
            return self._ahead.pop(name).result()
        if name not in self._common:
            return self._decode(name)
        if name not in self._decoded:
            self._decoded[name] = self._decode(name)
        return self._decoded[name]

    @contextmanager
    def decoding_ahead(self) -> Iterator[None]:
        """Decode what takes time to decode, each leaf once, in several threads, while the block asks for leaves."""
        encoded = [name for name in self.index.encodings if name not in self._common and self._takes_time(name)]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="decode") as pool:
            self._ahead = {name: pool.submit(self._decode, name) for name in encoded}
            try:
                yield
            finally:
                pool.shutdown(cancel_futures=True)
                self._ahead = {}

    def decoded_bytes(self) -> int:
        """Return the bytes of all leaves once they are decoded."""
        return sum(_decoded_bytes(encoding) for encoding in self._encodings.values())

    def _takes_time(self, name: str) -> bool:
        return _decoded_bytes(self.index.encodings[name]) >= AHEAD_BYTES

    @torch.no_grad()  # which holds for one thread
    def _decode(self, name: str) -> Tensor:
        encoding = self._encodings[name]
        tensor = encoding.decode(name, self._entry)
        for entry in () if isinstance(encoding, Dense) else encoding.entries(name):
            self._release(entry)
        return tensor

    def _check_entries(self) -> None:
        wanted = [entry for name, encoding in self._encodings.items() for entry in encoding.entries(name)]
        strange = set(wanted) ^ set(self._starts)
        if strange or len(wanted) != len(set(wanted)):
            example = next(iter(strange), wanted[0])
            raise ArtifactError(f"the index of {self.name} does not fit its entries, for example {example.name!r}")

    def _entry(self, entry: Entry) -> Tensor:
        start, dtype = self._starts[entry], DTYPES[entry.dtype]
        if not entry.nbytes:
            return torch.empty(entry.shape, dtype=dtype, device="cpu")
        if entry.nbytes >= MAPPED_BYTES and start % ALIGNMENT == 0:
            count = entry.nbytes // dtype.itemsize
            return torch.frombuffer(self._data, dtype=dtype, count=count, offset=start).view(entry.shape)
        raw = torch.frombuffer(self._data, dtype=torch.uint8, count=entry.nbytes, offset=start)
        return raw.clone().view(dtype).view(entry.shape)

    def _release(self, entry: Entry) -> None:
        """Let the operating system take back the memory of an entry that was decoded into a tensor of its own."""
        start = -(-self._starts[entry] // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (self._starts[entry] + entry.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > start and hasattr(self._data, "madvise"):
            self._data.madvise(mmap.MADV_DONTNEED, start, end - start)


def _decoded_bytes(encoding: Encoding) -> int:
    return nbytes_of(DTYPES[encoding.dtype], encoding.shape)


def _dense(entries: Mapping[Entry, int], encodings: Mapping[str, Any]) -> dict[str, Encoding]:
    """Return the leaves that need no index: entries that are no part of an encoded leaf."""
    parts = set(_part_names(encodings))
    return {entry.name: Dense(entry.dtype, entry.shape) for entry in entries if entry.name not in parts}


def _part_names(encodings: Mapping[str, Encoding]) -> Iterator[str]:
    for name, encoding in encodings.items():
        yield from (entry.name for entry in encoding.entries(name))
