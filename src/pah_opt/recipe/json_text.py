"""JSON as events. Text that Python's own JSON parser accepts is only cut into tokens here, to know their lines."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Literal

from pah_opt.recipe.events import Event, TextError
from pah_opt.recipe.yaml_text import MOST_DIGITS

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPENING: dict[str, Literal["mapping", "list"]] = {"{": "mapping", "[": "list"}
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]|[^\s{}\[\],:"]+')


def is_json(text: str) -> bool:
    """Tell whether ``text`` is JSON; if not, it may still be YAML."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        json.loads(text, parse_int=float)
    except (ValueError, RecursionError):
        return False
    return True


def json_events(text: str) -> Iterator[Event]:
    """Yield the events of a JSON document.

    Args:
        text: valid JSON (:func:`is_json`).

    Raises:
        TextError: a number is not finite or has too many digits.
    """
    line, position = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        yield _event(match.group(), line)


def _event(token: str, line: int) -> Event:
    if token in _OPENING:
        return Event(_OPENING[token], line)
    if token in ("}", "]"):
        return Event("end", line)
    if not token.startswith('"') and len(token) > MOST_DIGITS:
        raise TextError(f"a number has more than {MOST_DIGITS} digits", line)
    value = json.loads(token)
    if isinstance(value, float) and value - value != 0:
        raise TextError(f"numbers must be finite, got {token}", line)
    return Event("value", line, value)
