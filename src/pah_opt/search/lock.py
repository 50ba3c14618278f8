"""One search a folder: a lock that the operating system releases when its process ends, however that is."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pah_opt.errors import SearchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "search.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder inside the block.

    SQLite's own file lock serves: it is the operating system's on every platform, and gone with its process.

    Raises:
        SearchError: another search holds it, or the folder cannot be written.
    """
    connection = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(folder / NAME, timeout=0.0, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
    except (OSError, sqlite3.Error) as error:
        if connection is not None:
            connection.close()
        if "locked" in str(error):
            raise SearchError(
                f"another search is at work in {folder}; wait for it, or give this one another folder"
            ) from error
        raise SearchError(f"{folder} cannot hold a search ({error}); give a folder that can be written") from error
    try:
        yield
    finally:
        connection.close()
