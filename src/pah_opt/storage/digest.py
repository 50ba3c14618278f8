"""Checksums of files in pieces: several threads hash one file at once, and a damaged piece can be named."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pah_opt.errors import ArtifactError

if TYPE_CHECKING:
    from typing import BinaryIO

PIECE_BYTES = 8 * 2**20
"""A file up to this size has one checksum, the same that ``sha256sum`` prints."""
PENDING_PIECES = 4


@dataclass(frozen=True)
class Digest:
    """Size and checksums of a file.

    Args:
        size: in bytes.
        sha256: hexadecimal SHA-256 of each piece of :data:`PIECE_BYTES`; one of nothing for an empty file.
    """

    size: int
    sha256: tuple[str, ...]

    @classmethod
    def of(cls, data: bytes | memoryview) -> Digest:
        """Hash everything in ``data``, in several threads when it is large."""
        view = memoryview(data)
        starts = range(0, max(view.nbytes, 1), PIECE_BYTES)
        pieces = [view[start : start + PIECE_BYTES] for start in starts]
        if len(pieces) == 1:
            return cls(view.nbytes, (_sha256([pieces[0]]),))
        with hashing_pool() as pool:
            return cls(view.nbytes, tuple(pool.map(lambda piece: _sha256([piece]), pieces)))

    def check(self, data: bytes | memoryview, name: str) -> None:
        """Compare with what ``data`` gives.

        Raises:
            ArtifactError: it differs; names the file and the first byte of the first damaged piece.
        """
        size = memoryview(data).nbytes
        if size != self.size:
            raise ArtifactError(f"{name} is {size} bytes long and should be {self.size}: {_ADVICE}")
        found = Digest.of(data).sha256
        damaged = [i for i, (a, b) in enumerate(zip(found, self.sha256, strict=False)) if a != b]
        if damaged:
            raise ArtifactError(
                f"{name} is damaged at or after byte {damaged[0] * PIECE_BYTES} (wrong checksum): {_ADVICE}"
            )
        if len(found) != len(self.sha256):
            raise ArtifactError(f"{name} has {len(found)} checksums and should have {len(self.sha256)}: {_ADVICE}")


_ADVICE = "copy or download it again"


def hashing_pool() -> ThreadPoolExecutor:
    """Return threads for hashing, and one more that waits for the disk; hashlib lets them run at the same time."""
    return ThreadPoolExecutor(max_workers=1 + min(8, os.cpu_count() or 1), thread_name_prefix="sha256")


def _sha256(parts: list[memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


class HashingWriter:
    """Writes to a file, hashes what it writes and has it flushed to the disk, all at the same time, in other threads.

    Whoever flushes the file afterwards then finds little left to wait for. Buffers must not change until
    :meth:`digest` has returned; few are held at a time.

    Args:
        file: where to write, from its current position.
        pool: the threads.
    """

    def __init__(self, file: BinaryIO, pool: ThreadPoolExecutor) -> None:
        self._file = file
        self._pool = pool
        self._size = 0
        self._piece: list[memoryview] = []
        self._room = PIECE_BYTES
        self._pieces: list[Future[str]] = []
        self._descriptor = _descriptor(file)
        self._flushing: Future[None] | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Write all of ``data``."""
        view = memoryview(data).cast("B")
        self._size += view.nbytes
        while view.nbytes:
            part, view = view[: self._room], view[self._room :]
            self._file.write(part)
            self._piece.append(part)
            self._room -= part.nbytes
            if not self._room:
                self._end_piece()

    def digest(self) -> Digest:
        """Return size and checksums of everything written.

        Raises:
            OSError: the disk did not take it.
        """
        if self._piece or not self._pieces:
            self._end_piece()
        if self._flushing is not None:
            self._flushing.result()
        return Digest(self._size, tuple(piece.result() for piece in self._pieces))

    def _end_piece(self) -> None:
        self._pieces.append(self._pool.submit(_sha256, self._piece))
        self._piece, self._room = [], PIECE_BYTES
        self._flush_behind()
        if len(self._pieces) > PENDING_PIECES:
            self._pieces[-PENDING_PIECES].result()

    def _flush_behind(self) -> None:
        if self._descriptor is None or (self._flushing is not None and not self._flushing.done()):
            return
        if self._flushing is not None:
            self._flushing.result()  # the system reports a failed write once: it must not get lost here
        self._flushing = self._pool.submit(os.fsync, self._descriptor)


def _descriptor(file: BinaryIO) -> int | None:
    try:
        return file.fileno()
    except OSError:  # in memory
        return None
