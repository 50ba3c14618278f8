"""YAML as events: anchors, aliases and tags refused; plain values mean what YAML 1.2's core schema says.

So ``on``, ``yes`` and ``2024-01-01`` are text, and ``1e-4`` is a number, unlike in PyYAML's own loaders (YAML 1.1).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

import yaml

from pah_opt.recipe.events import Event, TextError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN")
_SIMPLE = re.compile(r"[A-Za-z]([A-Za-z0-9 _.,/+()%-]*[A-Za-z0-9_.)%])?")
_NOT_TEXT = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
LONGEST_FLOW = 80
"""Characters of a mapping of parameters that still stands on one line."""
MOST_DIGITS = 400
"""Digits of a number; more than any float has."""


def yaml_events(text: str) -> Iterator[Event]:
    """Yield the events of the one document in ``text``.

    Raises:
        TextError: it is no YAML, or uses what recipes do without.
    """
    try:
        yield from _events(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise TextError(f"not text: the character U+{error.character:04X} is not allowed", line) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(part for part in (error.context, error.problem) if part)
        hint = "; indent with spaces, not tabs" if "\\t" in words else ""
        raise TextError(f"not YAML: {words}{hint}", mark.line + 1 if mark else None) from error


def _events(text: str) -> Iterator[Event]:
    documents = 0
    # The parser alone: it holds its own stack, so that no depth of nesting can exhaust Python's.
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise TextError("a recipe is one document, and a second one starts here", line)
        elif isinstance(event, yaml.NodeEvent):
            _refuse_anchors_and_tags(event, line)
            yield _node(event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            yield Event("end", line)


def _refuse_anchors_and_tags(event: yaml.NodeEvent, line: int) -> None:
    if isinstance(event, yaml.AliasEvent):
        raise TextError(f"aliases are not allowed (*{event.anchor}); write the value out", line)
    if event.anchor is not None:
        raise TextError(f"anchors are not allowed (&{event.anchor}); write the value out where it is used", line)
    tag = getattr(event, "tag", None)
    if tag is not None:
        raise TextError(f"tags are not allowed ({tag}); values are text, numbers, true, false and null", line)


def _node(event: yaml.NodeEvent, line: int) -> Event:
    if isinstance(event, yaml.MappingStartEvent):
        return Event("mapping", line)
    if isinstance(event, yaml.SequenceStartEvent):
        return Event("list", line)
    event = cast("yaml.ScalarEvent", event)
    return Event("value", line, _scalar(event, line) if event.style is None else event.value)


def _scalar(event: yaml.ScalarEvent, line: int) -> Any:
    try:
        return plain_value(event.value)
    except ValueError as error:
        raise TextError(str(error), line) from error


def plain_value(text: str) -> Any:
    """Return what unquoted text means in YAML 1.2's core schema.

    >>> [plain_value(text) for text in ("1e-4", "on", "0x10", "null", "3")]
    [0.0001, 'on', 16, None, 3]

    Raises:
        ValueError: an infinite number, NaN, or one of too many digits.
    """
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"numbers must be finite, got {text}")
    return _number(text)


def _number(text: str) -> Any:
    is_int = _INT.fullmatch(text)
    if not is_int and not _FLOAT.fullmatch(text):
        return text
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number has more than {MOST_DIGITS} digits")
    if is_int:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"numbers must be finite, got {text}")
    return value


def yaml_of(data: dict[str, Any]) -> str:
    """Write JSON data as YAML that :func:`yaml_events` reads back equal."""
    text: str = yaml.emit(_document(data), width=float("inf"), allow_unicode=True)
    return text


def _document(data: dict[str, Any]) -> Iterator[yaml.Event]:
    yield yaml.StreamStartEvent()
    yield yaml.DocumentStartEvent(explicit=False)
    yield from _write(data, short=False)
    yield yaml.DocumentEndEvent(explicit=False)
    yield yaml.StreamEndEvent()


def _write(value: Any, *, short: bool = True) -> Iterator[yaml.Event]:
    flow = short and len(json.dumps(value)) <= LONGEST_FLOW
    if isinstance(value, dict):
        yield yaml.MappingStartEvent(None, None, implicit=True, flow_style=flow)
        for key, item in value.items():
            yield _write_scalar(key)
            yield from _write(item, short=key == "with" or flow)
        yield yaml.MappingEndEvent()
    elif isinstance(value, list):
        yield yaml.SequenceStartEvent(None, None, implicit=True, flow_style=flow)
        for item in value:
            yield from _write(item, short=flow)
        yield yaml.SequenceEndEvent()
    else:
        yield _write_scalar(value)


def _write_scalar(value: Any) -> yaml.ScalarEvent:
    text = value if isinstance(value, str) else json.dumps(value)
    style = '"' if isinstance(value, str) and not _is_simple(value) else None
    return yaml.ScalarEvent(None, None, (True, True), text, style=style)


def _is_simple(text: str) -> bool:
    """Tell whether text means itself without quotes, in YAML of any version."""
    return bool(_SIMPLE.fullmatch(text)) and text.lower() not in _NOT_TEXT
