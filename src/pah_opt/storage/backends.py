"""Types of optional libraries that files may name, imported only when one does."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from pah_opt.models.quiet import quiet_imports

if TYPE_CHECKING:
    from collections.abc import Iterator


@cache
def _torchao() -> dict[str, type]:
    with quiet_imports():
        from torchao.prototype.safetensors.safetensors_utils import ALLOWED_CLASSES

    return {name: found for name, found in ALLOWED_CLASSES.items() if isinstance(found, type)}


def torchao_types(base: type) -> dict[str, Any]:
    """Return the types that may be made from a file, those derived from ``base``, by name.

    They are those that torchao lists for this purpose, and tensor types that a strategy has derived from torchao's and
    imported by now.
    """
    return {name: found for name, found in (_derived() | _torchao()).items() if issubclass(found, base)}


def _derived() -> dict[str, type]:
    from torchao.utils import TorchAOBaseTensor

    return {kind.__name__: kind for kind in _subclasses(TorchAOBaseTensor) if not _is_torchaos(kind)}


def _subclasses(kind: type) -> Iterator[type]:
    found: type
    for found in kind.__subclasses__():
        yield found
        yield from _subclasses(found)


def is_torchao_tensor(tensor: object) -> bool:
    """Tell whether a tensor's type is one of torchao's, or derived from one."""
    return hasattr(tensor, "__tensor_flatten__") and any(map(_is_torchaos, type(tensor).__mro__))


def _is_torchaos(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "torchao"
