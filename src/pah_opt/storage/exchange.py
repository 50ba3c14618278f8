"""Two folders swap names in one step, where the operating system can do that (Linux, macOS)."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

AT_FDCWD = -100
SWAP = 2  # RENAME_EXCHANGE on Linux and RENAME_SWAP on macOS have the same value
UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM}
"""What file systems without an atomic exchange answer (network file systems, old kernels, containers' filters)."""


@cache
def _swap_function() -> Any:
    """Return a function of two encoded paths that swaps them and gives 0 on success; None where there is none."""
    if os.name != "posix":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        return lambda first, second: libc.renamex_np(first, second, SWAP)
    renameat2 = getattr(libc, "renameat2", None)
    return renameat2 and (lambda first, second: renameat2(AT_FDCWD, first, AT_FDCWD, second, SWAP))


def exchange(first: Path, second: Path) -> bool:
    """Swap the names of two existing paths in one atomic step.

    Returns:
        False, with nothing done, where the operating system or the file system cannot.

    Raises:
        OSError: it could, and failed.
    """
    swap = _swap_function()
    if swap is None:
        return False
    if swap(os.fsencode(first), os.fsencode(second)) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))
