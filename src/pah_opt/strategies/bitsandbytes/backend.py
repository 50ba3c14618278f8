"""bitsandbytes, imported late and quietly: its import runs every backend plugin it finds, and fails when one does."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

from pah_opt.errors import MissingBackendError

if TYPE_CHECKING:
    from types import ModuleType

_CAST_LOGGER = "bitsandbytes.autograd._functions"


def load(name: str = "bitsandbytes") -> ModuleType:
    """Import bitsandbytes (or a module of it).

    Raises:
        MissingBackendError: it cannot be imported, or a backend that it loads fails; the cause is chained.
    """
    library = logging.getLogger("bitsandbytes")
    level = library.level
    library.setLevel(logging.ERROR)  # it says which optional kernels are not installed
    try:
        module = importlib.import_module(name)
    except Exception as error:  # its import runs entry points of other packages, which may raise anything
        raise MissingBackendError(
            f"bitsandbytes cannot be imported ({type(error).__name__}: {error}); reinstall it with "
            "pip install 'bitsandbytes>=0.50,<0.51', or uninstall the backend plugin that fails"
        ) from error
    finally:
        library.setLevel(level)
    logger = logging.getLogger(_CAST_LOGGER)
    if _tells_news not in logger.filters:
        logger.addFilter(_tells_news)
    return module


def _tells_news(record: logging.LogRecord) -> bool:
    # LLM.int8 quantizes from half precision, and says so in every layer of every forward pass of a float32 model.
    return "inputs will be cast" not in record.getMessage()
