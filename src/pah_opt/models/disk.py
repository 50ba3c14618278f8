"""What a disk refuses, told as OSError whoever was writing."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBER = re.compile(r"\(os error (\d+)\)")


@contextmanager
def os_errors() -> Iterator[None]:
    """Let what safetensors cannot write (a full disk) fail as an OSError: it raises an error of its own instead.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = _NUMBER.search(str(error))
        if number is None:
            raise
        raise OSError(int(number.group(1)), os_message(str(error))) from error


def os_message(text: str) -> str:
    """Return the system's own words of an error that Rust wrote.

    >>> os_message("Error while serializing: I/O error: No space left on device (os error 28)")
    'No space left on device'
    """
    return _NUMBER.sub("", text).rpartition("error: ")[2].strip()
