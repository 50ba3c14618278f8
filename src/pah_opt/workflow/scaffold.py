"""A new plugin: a package that installs and passes its tests at once, written whole or not at all."""

from __future__ import annotations

import ast
import keyword
import re
import sys
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
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
LONGEST_NAME = 30
"""Characters of a name: with more of them the lines that it stands in would be too long for the formatter."""


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
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise PluginError(
            f"{name!r} cannot be the name of a strategy and its package: at most {LONGEST_NAME} lower case letters, "
            "digits and single hyphens, a letter first, such as row-pruning"
        )
    registry = default_registry()
    if name in registry.optimizers:
        raise PluginError(
            f"there is a strategy {name!r} already, from plugin {registry.optimizers[name].origin}; choose another name"
        )
    found = installed_version(name)
    if found is not None:
        raise PluginError(f"a distribution {name!r} ({found}) is installed already; choose another name")
    _check_module(name, _module(name))
    _check_kind(name, _kind(name))


def _check_module(name: str, module: str) -> None:
    """Refuse a package that Python cannot import, or that would stand in the way of another one."""
    if keyword.iskeyword(module):
        raise PluginError(
            f"{name!r} would make the package {module!r}, which Python does not allow; choose another name"
        )
    if module in sys.stdlib_module_names or _is_installed(module):
        raise PluginError(
            f"{name!r} would make the package {module!r}, and there is a module of that name already, in Python or "
            "among what is installed; choose another name"
        )


def _is_installed(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.origin is not None  # a folder that happens to lie here has no origin


def _check_kind(name: str, kind: str) -> None:
    """Refuse a class whose name the package's own modules use for something else."""
    taken = {kind, f"{kind}Config"} & _imported_names()
    if taken or keyword.iskeyword(kind):
        clash = ", ".join(sorted(taken)) or kind
        raise PluginError(
            f"{name!r} would make the class {clash}, a name that the package needs for something else; "
            "choose another name"
        )


def _imported_names() -> set[str]:
    """Return the names that the modules of a new package import from elsewhere."""
    sample = "row-zeros"
    modules = [text for path, text in _rendered(sample).items() if path.endswith(".py")]
    imports = [
        node for text in modules for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    own = {_kind(sample), f"{_kind(sample)}Config"}
    return {alias.asname or alias.name for node in imports for alias in node.names} - own


def _module(name: str) -> str:
    return name.replace("-", "_")


def _kind(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def _rendered(name: str) -> dict[str, str]:
    """Return the text of each file, by its path in the new package."""
    from pah_opt.version import __version__

    major, minor = __version__.split(".")[:2]
    values = {
        "name": name,
        "module": _module(name),
        "kind": _kind(name),
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
