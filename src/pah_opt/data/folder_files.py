"""Walk through a user's folder: links are followed, hidden names are left out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class Folder(NamedTuple):
    """A folder that was found.

    Args:
        parts: names of the folders from the root down to it; none for the root.
        path: where it was found.
        real: the same with links followed.
        files: names of the files in it.
        links: those of them that are links, and what they lead to.
    """

    parts: tuple[str, ...]
    path: Path
    real: Path
    files: tuple[str, ...]
    links: Mapping[str, Path]

    def named(self, file: str = "") -> str:
        """Return the name of the folder, or of a file in it, as seen from the root."""
        return "/".join((*self.parts, file))

    def real_path(self, file: str) -> str:
        """Return where a file is, links followed."""
        return str(self.links.get(file) or self.real / file)


_NOT_A_USERS = ("__", "lost+found")
"""How folders begin that programs make beside a user's, such as ``__MACOSX``."""


def folders_below(root: Path) -> Iterator[Folder]:
    """Yield ``root`` and every folder below it, in the order of their names.

    Names with a dot in front and :data:`_NOT_A_USERS` are left out. Nothing is in a link to a folder that it lies in.

    Raises:
        OSError: a folder cannot be read.
    """
    return _walked(root.absolute(), (), ())


def _walked(path: Path, parts: tuple[str, ...], above: tuple[Path, ...]) -> Iterator[Folder]:
    real = path.resolve()
    found = [] if real in above else _visible(path)
    files = [entry for entry in found if not entry.is_dir()]
    links = {entry.name: (path / entry.name).resolve() for entry in files if entry.is_symlink()}
    yield Folder(parts, path, real, tuple(entry.name for entry in files), links)
    for entry in found:
        if entry.is_dir() and not entry.name.startswith(_NOT_A_USERS):
            yield from _walked(path / entry.name, (*parts, entry.name), (*above, real))


def _visible(path: Path) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
