"""Files and folders that are replaced whole: after a crash at any moment the old content is there, or the new.

Everything is written under a temporary name beside the target, flushed to the disk, and renamed. This module imports
no torch. Errors are the operating system's own (``OSError``); callers say what they were doing.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pah_opt.storage.exchange import exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

if os.name == "posix":
    import fcntl

UNFINISHED = ".unfinished"
"""Ending of a folder that is being written, or being removed after it was replaced."""
REPLACED = ".replaced"
"""Ending of the old folder, whole, while it makes room for the new one where they cannot be swapped."""
SETTLED_S = 30.0 if os.name == "posix" else 86_400.0
"""A folder younger than this, in seconds, may belong to a writer that has not locked it yet, or that cannot."""
ATTEMPTS = 10
_LOST_A_RACE = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace a file's content with ``text`` (UTF-8), whole or not at all.

    Raises:
        OSError: it could not be written; the old content is untouched.
    """
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace a file's content, whole or not at all.

    Raises:
        OSError: it could not be written; the old content is untouched.
    """
    target = Path(path).resolve()
    temporary = _hidden(target, UNFINISHED)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:  # an interrupt must not leave the unfinished file behind either
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the operating system has a way to."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replace_folder(
    target: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    may_replace: Callable[[Path], None] | None = None,
) -> Iterator[Path]:
    """Give an empty folder to write into; when the block ends well it takes the place of ``target`` in one step.

    An exception in the block removes the new folder and leaves the old one. A process that dies leaves the old one
    too, and a hidden folder beside it that the next writer removes.

    Args:
        target: the folder to replace; a symbolic link is followed. Missing parents are made.
        overwrite: replace a folder that is there and not empty.
        may_replace: looks at the folder that is about to be replaced, and raises if it must stay.

    Raises:
        FileExistsError: something is there and ``overwrite`` is false.
        OSError: it could not be written; nothing is lost.
    """
    path = Path(target).resolve()
    _refuse(path, overwrite=overwrite, may_replace=may_replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    _Releaser.wait()
    new = _hidden(path, UNFINISHED)
    new.mkdir()
    try:
        with _locked(new):
            yield new
            _sync_all(new)
            _refuse(path, overwrite=overwrite, may_replace=may_replace)
            _put(new, path, overwrite=overwrite)
            sync_folder(path.parent)
    finally:
        _remove(new)


def whole_folder(target: str | os.PathLike[str]) -> Path:
    """Return where the content of ``target`` is: the folder, or the old one that a crash left beside it whole."""
    path = Path(target)
    if not path.exists():
        spare = sorted(_beside(path.resolve(), REPLACED), key=lambda p: p.stat().st_mtime)
        return spare[-1] if spare else path
    return path


def remove_leftovers(target: Path) -> None:
    """Remove what writers of ``target`` that died left beside it; those that are still at work are left alone."""
    leftovers = list(_beside(target, UNFINISHED))
    if target.exists():
        leftovers += _beside(target, REPLACED)
    for folder in leftovers:
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > SETTLED_S and folder.is_dir():
                with _locked(folder, must=True):
                    shutil.rmtree(folder, ignore_errors=True)


def _beside(target: Path, ending: str) -> Iterator[Path]:
    """Yield what :func:`_hidden` named beside ``target``, and nothing of a neighbour whose name begins alike."""
    wanted = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}{re.escape(ending)}")
    with suppress(OSError):
        yield from (path for path in target.parent.iterdir() if wanted.fullmatch(path.name))


def _hidden(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{ending}")


def _refuse(path: Path, *, overwrite: bool, may_replace: Callable[[Path], None] | None) -> None:
    if _vacant(path):
        return
    if not overwrite or not path.is_dir():
        raise FileExistsError(f"{path} exists already")
    if may_replace is not None:
        may_replace(path)


def _vacant(path: Path) -> bool:
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


@contextmanager
def _locked(folder: Path, *, must: bool = False) -> Iterator[None]:
    """Mark a folder as in use by this process; the mark vanishes with the process, however that ends."""
    if os.name != "posix":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(*(() if must else (OSError,))):  # some network file systems have no locks; writing needs none
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _sync_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)


def _put(new: Path, target: Path, *, overwrite: bool) -> None:
    """Give ``new`` the name ``target``; another writer may do the same at the same time, and one of them is last."""
    for _ in range(ATTEMPTS):
        try:
            if _vacant(target):
                new.rename(target)
            elif not overwrite:
                break
            elif not exchange(new, target):
                _make_room(new, target)
        except OSError as error:
            if error.errno not in _LOST_A_RACE:
                raise
        else:
            return
    raise FileExistsError(f"{target} exists already")


def _make_room(new: Path, target: Path) -> None:
    """Replace without an exchange: for an instant ``target`` is missing, and :func:`whole_folder` finds the old one."""
    old = _hidden(target, REPLACED)
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:  # an interrupt must put the old folder back as well
        if not target.exists():
            old.rename(target)
        raise
    _remove(old)


def _remove(folder: Path) -> None:
    """Remove a folder at once, and have the space of its files given back in another thread.

    Giving back takes about as long as writing a third of the files did, and nobody needs to wait for it: the names are
    gone when this returns, and the space with the last descriptor, or with the process.
    """
    held: list[int] = []
    if os.name == "posix":
        for path in folder.glob("*"):
            with suppress(OSError):
                held.append(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
    shutil.rmtree(folder, ignore_errors=True)
    _Releaser.close(held)


class _Releaser:
    """Closes descriptors of removed files in another thread."""

    _thread: threading.Thread | None = None

    @classmethod
    def close(cls, descriptors: list[int]) -> None:
        """Close them, soon."""

        def work() -> None:
            for descriptor in descriptors:
                os.close(descriptor)

        cls._thread = threading.Thread(target=work, name="release", daemon=True)
        cls._thread.start()

    @classmethod
    def wait(cls) -> None:
        """Wait until the space is free: whoever writes again on a nearly full disk may need it."""
        if cls._thread is not None:
            cls._thread.join()
