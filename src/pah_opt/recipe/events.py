"""One stream of events for YAML and JSON, and the data and lines they make: safe whatever the text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.recipe.places import Path

MOST_LEVELS = 32
MOST_VALUES = 20_000


class Event(NamedTuple):
    """One step through a document.

    Args:
        kind: the start of a mapping or list, its end, or a value.
        line: one-based line.
        value: the value (text, number, true, false or null).
    """

    kind: Literal["mapping", "list", "end", "value"]
    line: int
    value: Any = None


class TextError(ValueError):
    """Text that is no recipe data; ``line`` is one-based."""

    def __init__(self, message: str, line: int | None = None) -> None:
        self.line = line
        super().__init__(message)


@dataclass
class _Open:
    """A mapping or list that is being filled."""

    data: dict[str, Any] | list[Any]
    path: Path
    key: str | None = None

    @property
    def next_path(self) -> Path:
        """Keys and indices that lead to the next value."""
        return (*self.path, len(self.data) if isinstance(self.data, list) else str(self.key))

    def add(self, value: Any) -> None:
        """Put in the next value."""
        if isinstance(self.data, list):
            self.data.append(value)
        else:
            self.data[str(self.key)] = value
            self.key = None


@dataclass
class Composer:
    """Builds data and the line of every value from events.

    Raises:
        TextError: a key is no text or stands twice; too many levels or values.
    """

    lines: dict[Path, int] = field(default_factory=dict)
    root: Any = None
    _open: list[_Open] = field(default_factory=list)

    def compose(self, events: Iterable[Event]) -> Any:
        """Return the data of one document."""
        for event in events:
            if event.kind == "end":
                self._open.pop()
            elif self._awaits_key:
                self._take_key(event)
            else:
                self._take_value(event)
        return self.root

    @property
    def _awaits_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].data, dict) and self._open[-1].key is None

    def _take_key(self, event: Event) -> None:
        here = self._open[-1]
        if event.kind != "value" or not isinstance(event.value, str):
            raise TextError("a key must be text; put it in quotes", event.line)
        if event.value in here.data:
            first = (*here.path, event.value)
            raise TextError(f"the key {event.value!r} stands twice, first on line {self.lines[first]}", event.line)
        here.key = event.value
        self._count(here.next_path, event.line)

    def _take_value(self, event: Event) -> None:
        path = self._open[-1].next_path if self._open else ()
        if path not in self.lines:
            self._count(path, event.line)
        value = event.value if event.kind == "value" else {} if event.kind == "mapping" else []
        if self._open:
            self._open[-1].add(value)
        else:
            self.root = value
        if event.kind != "value":
            self._descend(value, path, event.line)

    def _descend(self, data: dict[str, Any] | list[Any], path: Path, line: int) -> None:
        if len(self._open) == MOST_LEVELS:
            raise TextError(f"more than {MOST_LEVELS} levels of lists and mappings", line)
        self._open.append(_Open(data, path))

    def _count(self, path: Path, line: int) -> None:
        if len(self.lines) == MOST_VALUES:
            raise TextError(f"more than {MOST_VALUES:,} values", line)
        self.lines[path] = line
