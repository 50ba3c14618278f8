"""Types of optional libraries that files may name, imported only when one does."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def _torchao() -> dict[str, type]:
    from torchao.prototype.safetensors.safetensors_utils import ALLOWED_CLASSES

    return {name: found for name, found in ALLOWED_CLASSES.items() if isinstance(found, type)}


def torchao_types(base: type) -> dict[str, Any]:
    """Return torchao's types that may be made from a file, those derived from ``base``, by name."""
    return {name: found for name, found in _torchao().items() if issubclass(found, base)}
