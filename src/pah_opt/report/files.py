"""Write what was rendered, whole or not at all; remove what is no longer true."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pah_opt.errors import MeasurementError
from pah_opt.storage.atomic import write_text

if TYPE_CHECKING:
    from os import PathLike

REPORT = "report.json"
"""How a report is called in a folder of results, and beside a model."""


def write(path: str | PathLike[str], text: str) -> Path:
    """Replace a file's content; folders above it are made.

    Raises:
        MeasurementError: it could not be written; the old content is untouched.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, text)
    except OSError as error:
        raise MeasurementError(f"{target} cannot be written: {error}") from error
    return target


def remove(path: Path) -> None:
    """Remove a file of an earlier report, if it is there.

    Raises:
        MeasurementError: it cannot be removed.
    """
    try:
        if path.is_file():
            path.unlink()
    except OSError as error:
        raise MeasurementError(f"{path} is of an earlier report and cannot be removed: {error}") from error
