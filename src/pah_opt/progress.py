"""Progress of long work: a bar on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


class Progress:
    """Shows how far a loop is. This base class shows nothing; :class:`TerminalProgress` draws a bar."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield from ``items``, showing ``description`` and how many of ``total`` are done."""
        yield from items

    def message(self, text: str) -> None:
        """Show one line."""


class TerminalProgress(Progress):
    """Draws bars with rich on standard error."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield from ``items`` under a bar that vanishes when done."""
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        yield from track(items, description, total=total, console=console, transient=True)

    def message(self, text: str) -> None:
        """Print one line to standard error."""
        print(text, file=sys.stderr)


def default_progress() -> Progress:
    """Return bars when standard error is a terminal, silence otherwise."""
    return TerminalProgress() if sys.stderr.isatty() else Progress()
