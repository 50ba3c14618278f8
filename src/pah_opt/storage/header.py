"""The header of a safetensors file, read strictly: whatever does not describe exactly the bytes that follow is refused.

The safetensors library reads files by path. Here the bytes whose checksum was verified must be the bytes that are
used, wherever they come from (a mapped file, a decompressed one), so the format's few rules are checked here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pah_opt.errors import ArtifactError
from pah_opt.storage.dtypes import DTYPES
from pah_opt.storage.encoding import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_HEADER_BYTES = 100_000_000
MAX_DIMENSIONS = 64
MAX_DIMENSION = 2**48


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about itself.

    Args:
        metadata: free text by name.
        starts: where each entry's data begins, in bytes from the beginning of the file.
    """

    metadata: Mapping[str, str]
    starts: Mapping[Entry, int]


def parse_header(data: memoryview, name: str) -> Header:
    """Read the header at the beginning of ``data``, the whole content of a file.

    Args:
        data: the file's content.
        name: the file's name, for messages.

    Raises:
        ArtifactError: it is not a safetensors file, or its header does not fit the data.
    """
    length = int.from_bytes(data[:8], "little")
    if data.nbytes < 8 or length > min(MAX_HEADER_BYTES, data.nbytes - 8):
        raise ArtifactError(f"{name} is not a safetensors file: its first 8 bytes are not the length of a header")
    try:
        described = json.loads(str(data[8 : 8 + length], "utf-8"), object_pairs_hook=_unique)
        metadata = described.pop("__metadata__", {})
        entries = [_entry(key, value) for key, value in described.items()]
        _check_metadata(metadata)
    except (ArtifactError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise ArtifactError(f"{name} has a header that cannot be read ({error})") from error
    return Header(metadata, _placed(entries, 8 + length, data.nbytes, name))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ArtifactError("a name occurs twice")
    return found


def _check_metadata(metadata: dict[str, Any]) -> None:
    if not all(isinstance(text, str) for text in metadata.values()):
        raise ArtifactError("metadata that is not text")


def _entry(name: str, described: dict[str, Any]) -> tuple[Entry, int]:
    dtype, shape, (start, end) = described["dtype"], described["shape"], described["data_offsets"]
    if len(described) != 3 or dtype not in DTYPES or len(shape) > MAX_DIMENSIONS:
        raise ArtifactError(f"entry {name!r} has a type or shape that is not known")
    if not all(type(n) is int and 0 <= n <= MAX_DIMENSION for n in (*shape, start, end)):
        raise ArtifactError(f"entry {name!r} has a shape or offsets that are not sizes")
    entry = Entry(name, dtype, tuple(shape))
    if entry.nbytes != end - start:
        raise ArtifactError(f"entry {name!r} takes {entry.nbytes} bytes and is given {end - start}")
    return entry, start


def _placed(entries: list[tuple[Entry, int]], first: int, size: int, name: str) -> dict[Entry, int]:
    """Check that the entries follow one another without gap or overlap up to the end of the file."""
    position, starts = first, {}
    for entry, start in sorted(entries, key=lambda item: (item[1], item[0].nbytes)):
        if first + start != position:
            raise ArtifactError(f"{name} has a gap or an overlap before entry {entry.name!r}")
        starts[entry] = position
        position += entry.nbytes
    if position != size:
        raise ArtifactError(f"{name} is {size} bytes long and its header describes {position}")
    return starts
