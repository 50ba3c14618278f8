"""Lossless zstd around a weights file, and its limits: a small file never becomes an unreasonably large one."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

from pah_opt.errors import ArtifactError, MissingBackendError
from pah_opt.storage.digest import Digest, HashingWriter, hashing_pool
from pah_opt.storage.writer import weights_bytes

if TYPE_CHECKING:
    from typing import BinaryIO

    from pah_opt.storage.weights import Weights

LEVEL = 3
MAX_WINDOW_BYTES = 2**27
MAX_EXPANSION = 200
"""A file may become this many times larger: zeros are stored as bits, so that weights never compress so well."""
FREE_BYTES = 64 * 2**20
"""What is always allowed, whatever the file's size."""


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise MissingBackendError("compressed weights need zstandard: pip install 'pah-opt[zstd]'") from error
    return zstandard


def write_compressed(file: BinaryIO, weights: Weights) -> Digest:
    """Write a safetensors file through zstd; returns size and checksums of what is on the disk.

    Raises:
        MissingBackendError: zstandard is not installed.
        OSError: it could not be written.
    """
    compressor = _zstandard().ZstdCompressor(level=LEVEL, write_checksum=True)
    with hashing_pool() as pool:
        writer = HashingWriter(file, pool)
        stream = compressor.stream_writer(writer, size=weights.nbytes, closefd=False)
        for data in weights_bytes(weights):
            stream.write(data)
        stream.close()  # never after an error: the refusal of an unfinished frame would hide it
        return writer.digest()


def decompressed(packed: mmap.mmap, name: str) -> mmap.mmap:
    """Decompress into memory of its own.

    Args:
        packed: one zstd frame that states the size of its content.
        name: the file's name, for messages.

    Raises:
        ArtifactError: it is damaged, or would become unreasonably large.
        MissingBackendError: zstandard is not installed.
    """
    zstandard = _zstandard()
    view = memoryview(packed)
    try:
        size = _stated_size(zstandard, view, name)
        content = mmap.mmap(-1, size)
        reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).stream_reader(view)
        filled = _fill(reader, memoryview(content))
        if filled != size or reader.read(1):
            raise ArtifactError(f"{name} does not hold the {size} bytes that it states")
    except zstandard.ZstdError as error:
        raise ArtifactError(f"{name} cannot be decompressed: {error}") from error
    return content


def _stated_size(zstandard: Any, view: memoryview, name: str) -> int:
    size: int = zstandard.get_frame_parameters(view[:64]).content_size
    limit = FREE_BYTES + MAX_EXPANSION * view.nbytes
    if size == zstandard.CONTENTSIZE_UNKNOWN or not 0 < size <= limit:
        raise ArtifactError(
            f"{name} ({view.nbytes} bytes) states a content of {size} bytes; at most {limit} are allowed"
        )
    return size


def _fill(reader: Any, content: memoryview) -> int:
    filled = 0
    while filled < content.nbytes and (count := reader.readinto(content[filled:])):
        filled += count
    return filled
