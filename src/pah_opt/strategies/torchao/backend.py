"""torchao, imported quietly: it logs what it could not load, whatever it is then used for."""

from __future__ import annotations

import importlib
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pah_opt.errors import MissingBackendError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

# torchao logs that CUDA extensions do not load beside a CPU build of torch, and torch that torchao registers an
# enumeration it need not: nothing a user of this library can act on.
_NOISY = ("torchao", "torchao.kernel.intmm", "torch.utils._pytree")


def load(name: str) -> ModuleType:
    """Import a module of torchao without its log messages.

    Raises:
        MissingBackendError: it cannot be imported; the cause is chained.
    """
    try:
        with _quiet():
            return importlib.import_module(name)
    except ImportError as error:
        raise MissingBackendError(
            f"{name} cannot be imported ({error}); pip install 'torchao>=0.18,<0.19' beside a torch it supports"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
