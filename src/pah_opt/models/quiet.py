"""Keep what libraries print while they are imported, load weights or compile out of a user's terminal.

Nothing that matters is lost: :mod:`pah_opt.models.pretrained` turns what a load reports into notes.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_IMPORT_NOISE = {
    # torchao tries every compiled extension it ships and says so for each that is built for other hardware.
    "torchao": ("Failed to load", "Skipping import of cpp extensions"),
    # torchao registers enums in a way that torch itself calls outdated.
    "torch.utils._pytree": ("is an Enum subclass",),
}

_COMPILER_NOISE = (
    # torch cannot name torchao's tensors in its cache of compiled code, and names them by their content instead.
    (UserWarning, r".* does not implement _stable_hash_for_caching"),
    # Capturing bitsandbytes' products, torch makes an instance of a class of its own that it advises against making.
    (DeprecationWarning, r".* should not be instantiated\. Methods on autograd functions are all static"),
)


class _Drop(logging.Filter):
    """Drops records whose message contains one of some texts."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        super().__init__()
        self.texts = texts

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(text in message for text in self.texts)


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Drop what importing torchao (which importing a transformers model does) logs, inside the block."""
    filters = {name: _Drop(texts) for name, texts in _IMPORT_NOISE.items()}
    for name, drop in filters.items():
        logging.getLogger(name).addFilter(drop)
    try:
        yield
    finally:
        for name, drop in filters.items():
            logging.getLogger(name).removeFilter(drop)


def quiet_compiling() -> None:
    """Have this process ignore, from now on, what torch says of its own doings while it compiles.

    Compiled code compiles itself again inside any call, for other shapes or states: a block around each call would
    cost time, and changing filters back and forth is not safe between threads.
    """
    for category, message in _COMPILER_NOISE:
        warnings.filterwarnings("ignore", message=message, category=category)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars, load reports and warnings inside the block, and import noise with them."""
    with quiet_imports(), warnings.catch_warnings():
        from transformers.utils import logging as their_logging

        bars, verbosity = their_logging.is_progress_bar_enabled(), their_logging.get_verbosity()
        warnings.filterwarnings("ignore", module="transformers")
        their_logging.set_verbosity_error()
        their_logging.disable_progress_bar()
        try:
            yield
        finally:
            their_logging.set_verbosity(verbosity)
            if bars:
                their_logging.enable_progress_bar()
