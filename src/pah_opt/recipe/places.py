"""Where the parts of a recipe were written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Path = tuple["str | int", ...]


@dataclass(frozen=True)
class Places:
    """File and lines of a recipe. All Places are equal: where it was written is no part of what a recipe says.

    Args:
        file: path of the file; None for text or Python.
        lines: one-based line of each value, by the keys and indices that lead to it.
    """

    file: str | None = field(default=None, compare=False)
    lines: Mapping[Path, int] = field(default_factory=dict, compare=False)

    def line(self, path: Path) -> int | None:
        """Return the line of the value at ``path``, or of what holds it where it is not there."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path)
