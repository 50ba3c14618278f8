"""One search or study a folder: a lock that the operating system releases when its process ends, however that is."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pah_opt.errors import PahOptError


@contextmanager
def locked(folder: Path, what: str, error_type: type[PahOptError]) -> Iterator[None]:
    """Hold the lock of a folder inside the block.

    SQLite's own file lock serves: it is the operating system's on every platform, and gone with its process.

    Args:
        folder: made where it is missing.
        what: who holds it, such as ``search``.
        error_type: what to raise.

    Raises:
        PahOptError: of ``error_type``: another one holds it, or the folder cannot be written.
    """
    connection = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(folder / f"{what}.lock", timeout=0.0, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
    except (OSError, sqlite3.Error) as error:
        if connection is not None:
            connection.close()
        if "locked" in str(error):
            raise error_type(
                f"another {what} is at work in {folder}; wait for it, or give this one another folder"
            ) from error
        raise error_type(f"{folder} cannot hold a {what} ({error}); give a folder that can be written") from error
    try:
        yield
    finally:
        connection.close()
