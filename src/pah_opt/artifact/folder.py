"""Reading a folder that nobody vouches for: ordinary files of known names, whole, unchanged, not too large."""

from __future__ import annotations

import mmap
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pah_opt.artifact.files import MANIFEST, MAX_JSON_BYTES, MAX_MANIFEST_BYTES, may_lie_beside
from pah_opt.artifact.manifest import Manifest
from pah_opt.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pah_opt.artifact.manifest import FileRecord

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class ArtifactFolder:
    """The files of one artifact, each opened without following links and checked against the manifest.

    Args:
        path: the folder.

    Raises:
        ArtifactError: it is no folder, has no valid manifest, lacks a file, or holds one that does not belong there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cache = _hub_cache_of(path)
        if not path.is_dir():
            what = "a file" if path.exists() else "not there"
            raise ArtifactError(f"{path} is {what}; give the folder of a saved artifact, or a hub name user/model")
        self.manifest = Manifest.from_bytes(self._read(MANIFEST, MAX_MANIFEST_BYTES))
        self._check_names()

    def __contains__(self, name: str) -> bool:
        return name in self.manifest.files

    def read(self, name: str) -> bytes:
        """Return the content of a small file.

        Raises:
            ArtifactError: the manifest does not list it, it is damaged, too large, or not an ordinary file.
        """
        data = self._read(name, MAX_JSON_BYTES)
        self._record(name).digest.check(data, name)
        return data

    def map(self, name: str) -> mmap.mmap:
        """Map a file into memory, privately: writing to the memory never changes the file. Its checksum is verified.

        Raises:
            ArtifactError: the manifest does not list it, it is damaged, or not an ordinary file.
        """
        record = self._record(name)
        with self._opened(name) as (descriptor, size):
            if size != record.bytes or size == 0:
                raise ArtifactError(f"{self.path / name} is {size} bytes long and should be {record.bytes}")
            try:
                mapped = mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
            except OSError as error:
                raise ArtifactError(f"{self.path / name} cannot be read: {error}") from error
        record.digest.check(memoryview(mapped), str(self.path / name))
        return mapped

    def _record(self, name: str) -> FileRecord:
        if name not in self.manifest.files:
            raise ArtifactError(f"{self.path} has no {name} in its manifest")
        return self.manifest.files[name]

    def _read(self, name: str, limit: int) -> bytes:
        with self._opened(name) as (descriptor, size):
            if size > limit:
                raise ArtifactError(f"{self.path / name} is {size} bytes long; at most {limit} are allowed")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(limit + 1)

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[int, int]]:
        """Open a file; yields its descriptor and size."""
        try:
            descriptor = os.open(self._real(name), _FLAGS)
        except OSError as error:
            raise ArtifactError(f"{self.path / name} cannot be opened: {_why(error)}") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ArtifactError(f"{self.path / name} is not an ordinary file")
            yield descriptor, status.st_size
        finally:
            os.close(descriptor)

    def _real(self, name: str) -> Path:
        """Return where a file is; only the hub's own cache keeps its files as links, to its own blobs."""
        path = self.path / name
        if self._cache is None or not path.is_symlink():
            return path
        real = path.resolve()
        return real if real.is_relative_to(self._cache) else path

    def _check_names(self) -> None:
        found = {entry.name for entry in self.path.iterdir() if not may_lie_beside(entry.name)} - {MANIFEST}
        missing, extra = set(self.manifest.files) - found, found - set(self.manifest.files)
        if missing:
            raise ArtifactError(f"{self.path} lacks {', '.join(sorted(missing))}: copy or download the artifact again")
        if extra:
            raise ArtifactError(f"{self.path} holds {', '.join(sorted(extra)[:3])}, no part of the artifact: remove it")


def _hub_cache_of(path: Path) -> Path | None:
    """Return the blobs folder when ``path`` is a snapshot in huggingface_hub's cache."""
    blobs = path.resolve().parent.parent / "blobs"
    return blobs.resolve() if path.resolve().parent.name == "snapshots" and blobs.is_dir() else None


def _why(error: OSError) -> str:
    links = "it is a symbolic link; artifacts hold ordinary files"
    return links if error.errno == getattr(os, "ELOOP", 40) else (error.strerror or str(error))
