"""A new plugin: a package that installs and passes its tests at once, written whole or not at all."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from pah_opt.environment import installed_version
from pah_opt.errors import PluginError
from pah_opt.registry import default_registry
from pah_opt.storage.atomic import replace_folder

if TYPE_CHECKING:
    from os import PathLike

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SUFFIX = ".template"


@dataclass(frozen=True)
class NewPlugin:
    """What was written.

    Args:
        folder: the package's root.
        files: paths under it.
    """

    folder: Path
    files: tuple[str, ...]


def write_plugin(name: str, out: str | PathLike[str] | None = None) -> NewPlugin:
    """Write a complete package for one new strategy.

    Args:
        name: of the strategy, and so of the distribution: lower case with hyphens.
        out: the folder; ``name`` in the current folder by default.

    Raises:
        PluginError: the name cannot be used or is taken, or the folder exists; nothing was written.
    """
    folder = Path(out or name)
    _check_name(name)
    if folder.exists():
        raise PluginError(f"{folder} exists already; choose another folder with --out, or remove it")
    files = _rendered(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replace_folder(folder, overwrite=False) as new:
        for path, text in files.items():
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).write_text(text, encoding="utf-8")
    return NewPlugin(folder, tuple(sorted(files)))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > 60:
        raise PluginError(
            f"{name!r} cannot be the name of a strategy and its package: lower case letters, digits and single "
            "hyphens, a letter first, such as row-pruning"
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module == "pah_opt":
        raise PluginError(
            f"{name!r} would make the package {module!r}, which Python does not allow; choose another name"
        )
    registry = default_registry()
    if name in registry.optimizers:
        raise PluginError(
            f"there is a strategy {name!r} already, from plugin {registry.optimizers[name].origin}; choose another name"
        )
    found = installed_version(name)
    if found is not None:
        raise PluginError(f"a distribution {name!r} ({found}) is installed already; choose another name")


def _rendered(name: str) -> dict[str, str]:
    """Return the text of each file, by its path in the new package."""
    from pah_opt.version import __version__

    major, minor = __version__.split(".")[:2]
    values = {
        "name": name,
        "module": name.replace("-", "_"),
        "kind": "".join(part.capitalize() for part in name.split("-")),
        "version": __version__,
        "next_version": f"{major}.{int(minor) + 1}",
    }
    root = resources.files("pah_opt") / "templates" / "plugin"
    names = [entry.name for entry in root.iterdir() if entry.name.endswith(_SUFFIX)]
    texts = {entry: (root / entry).read_text(encoding="utf-8") for entry in sorted(names)}
    return {_path(entry, values["module"]): Template(text).substitute(values) for entry, text in texts.items()}


def _path(entry: str, module: str) -> str:
    """Return where a template's text belongs: its file's name has ``--`` between folders."""
    return entry.removesuffix(_SUFFIX).replace("--", "/").replace("MODULE", module)
