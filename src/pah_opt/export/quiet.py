"""Keep what exporters and compilers print out of a user's terminal; what matters is checked on the result."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING

from pah_opt.models.quiet import quiet_imports

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOGGERS = ("torch.onnx", "torch.onnx._internal.exporter._registration", "torch.export", "onnxscript", "onnx_ir")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings and all log messages below errors of the exporters inside the block."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with quiet_imports(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
