"""torchao, imported quietly: it logs what it could not load, whatever it is then used for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pah_opt.errors import MissingBackendError

if TYPE_CHECKING:
    from types import ModuleType


def load(name: str) -> ModuleType:
    """Import a module of torchao without its log messages.

    Raises:
        MissingBackendError: it cannot be imported; the cause is chained.
    """
    from pah_opt.models.quiet import quiet_imports

    try:
        with quiet_imports():
            return importlib.import_module(name)
    except ImportError as error:
        raise MissingBackendError(
            f"{name} cannot be imported ({error}); pip install 'torchao>=0.18,<0.19' beside a torch it supports"
        ) from error
