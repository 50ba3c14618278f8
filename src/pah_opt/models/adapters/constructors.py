"""Name the class of a model in a file, and import it again from where such classes may come from, and nowhere else."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from torch import nn

from pah_opt.errors import ArtifactError, MissingBackendError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Sequence


def _is_home(module: str, homes: Sequence[str]) -> bool:
    return any(module == home or module.startswith(f"{home}.") for home in homes)


def qualified_name(kind: type[nn.Module], homes: Sequence[str]) -> str:
    """Return ``module:class``.

    Raises:
        UnsupportedModelError: the class is not from one of ``homes``, so that it could not be rebuilt.
    """
    if not _is_home(kind.__module__, homes):
        raise UnsupportedModelError(
            f"{kind.__module__}.{kind.__qualname__} cannot be described for rebuilding: only classes of "
            f"{', '.join(homes)} can; use one of those, or add a ModelAdapter for your class"
        )
    return f"{kind.__module__}:{kind.__qualname__}"


def import_class(name: str, homes: Sequence[str]) -> type[nn.Module]:
    """Import what :func:`qualified_name` named.

    Raises:
        ArtifactError: the name is not a model class of one of ``homes``; nothing else is ever imported.
        MissingBackendError: its library is not installed.
    """
    module, _, attribute = name.partition(":")
    if not _is_home(module, homes):
        raise ArtifactError(f"the structure names the class {name!r}; allowed are classes of {', '.join(homes)}")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        library = module.partition(".")[0]
        raise MissingBackendError(f"the model needs {library} ({error}); pip install {library}") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ArtifactError(f"{name!r} is no model class of the installed {module.partition('.')[0]}")
    return found
