"""Which split a name is a name of: the words are those that the datasets library looks for."""

from __future__ import annotations

import re
from functools import lru_cache

from pah_opt.errors import DataError

_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLITS = tuple(_WORDS)
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}


@lru_cache(maxsize=4096)
def split_named(name: str) -> str | None:
    """Return the split that a file or folder is named after: ``validation`` for ``my-val_2``; None for ``trainer``.

    Raises:
        DataError: the name is that of two splits.
    """
    found = {_SPLIT_OF[word] for word in re.split(r"[-._ 0-9]+", name.casefold()) if word in _SPLIT_OF}
    if len(found) > 1:
        raise DataError(f"{name!r} is named after two splits ({', '.join(sorted(found))}); name it after one")
    return next(iter(found), None)
