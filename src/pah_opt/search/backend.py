"""Optuna, imported when a search needs it, and kept quiet."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pah_opt.errors import MissingBackendError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Drop what Optuna logs and warns of (experimental options that are used on purpose) inside the block."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"optuna\..*")
            warnings.filterwarnings("ignore", message=r".*experimental.*")
            yield
    finally:
        logger.setLevel(level)


def import_optuna() -> Any:
    """Return the module.

    Raises:
        MissingBackendError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingBackendError(
            "searching runs on Optuna, which is not installed; pip install 'pah-opt[search]'"
        ) from error
    return optuna
