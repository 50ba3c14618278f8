"""Progress of long work: a bar on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.progress import Progress as Bars

T = TypeVar("T")


class Progress:
    """Shows how far a loop is. This base class shows nothing; :class:`TerminalProgress` draws a bar."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield from ``items``, showing ``description`` and how many of ``total`` are done."""
        yield from items

    def message(self, text: str) -> None:
        """Show one line."""


class TerminalProgress(Progress):
    """Draws bars with rich on standard error, one under another while loops are nested."""

    def __init__(self) -> None:
        self._bars: Bars | None = None

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield from ``items`` under a bar that vanishes when done."""
        with self._shown() as bars:
            task = bars.add_task(description, total=_length(items) if total is None else total)
            try:
                for item in items:
                    yield item
                    bars.advance(task)
            finally:
                bars.remove_task(task)

    def message(self, text: str) -> None:
        """Print one line above the bars."""
        if self._bars is None:
            print(text, file=sys.stderr)
        else:
            self._bars.console.print(text, highlight=False, markup=False)

    @contextmanager
    def _shown(self) -> Iterator[Bars]:
        """Share one display among nested loops: rich allows a single live display."""
        if self._bars is not None:
            yield self._bars
            return
        with _new_bars() as bars:
            self._bars = bars
            try:
                yield bars
            finally:
                self._bars = None


def _new_bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return RichProgress(*columns, console=Console(stderr=True), transient=True)


def _length(items: Iterable[T]) -> int | None:
    return len(items) if isinstance(items, Sized) else None


def default_progress() -> Progress:
    """Return bars when standard error is a terminal, silence otherwise."""
    return TerminalProgress() if sys.stderr.isatty() else Progress()
