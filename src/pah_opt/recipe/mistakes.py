"""Pydantic's errors, translated: where, what was written, what is allowed, the nearest valid name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType

from pah_opt.errors import nearest_name
from pah_opt.recipe.allowed import Schema, at_path, in_words, opened_at

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Path = tuple["str | int", ...]
M = TypeVar("M", bound=BaseModel)

_LONGEST_VALUE = 60
"""Characters of a user's value that a message repeats."""
_RAISED = ("value_error", "assertion_error")
_PYDANTICS = frozenset((*get_args(ErrorType), "invalid-json-value"))  # the last is JsonValue's, and not among them
"""Kinds of mistakes that pydantic itself finds; a validator may raise others, with words of its own."""
"""Error types of a validator's own message, which already says what is allowed."""


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong with data.

    Args:
        path: keys and indices that lead to it; empty for the whole.
        message: what is wrong.
        allowed: what would be accepted.
        nearest: the valid name closest to what was written.
    """

    path: Path
    message: str
    allowed: str | None = None
    nearest: str | None = None


def read_strictly(model: type[M], data: Mapping[str, Any]) -> M | list[Mistake]:
    """Make a model from JSON data without converting types (``"0.5"`` is no number), or list every mistake."""
    try:
        return model.model_validate_json(json.dumps(data, allow_nan=True), strict=True)
    except ValidationError as error:
        return list(mistakes(error, model, data))


def mistakes(error: ValidationError, model: type[BaseModel], data: object) -> Iterator[Mistake]:
    """Translate a ValidationError; the alternatives of a union that all fail make one mistake."""
    schema = model.model_json_schema(by_alias=True)
    details = [(_data_path(detail, data), detail) for detail in error.errors(include_url=False)]
    details = [(path, detail) for path, detail in details if not _follows(path, detail["type"], details)]
    for path, group in groupby(details, key=lambda pair: pair[0]):
        yield _mistake(path, [detail for _, detail in group], data, schema)


def _follows(path: Path, kind: str, details: list[tuple[Path, ErrorDetails]]) -> bool:
    """Tell whether an error only follows from one deeper inside the same value.

    A list is counted without its wrong items, so it may seem too short; and a union also names the alternatives that
    the value was not meant to be.
    """
    return kind not in _RAISED and any(other[: len(path)] == path and len(other) > len(path) for other, _ in details)


def _data_path(detail: ErrorDetails, data: object) -> Path:
    """Keep those parts of pydantic's location that lead through the data: it also names a union's alternatives."""
    path: list[str | int] = []
    last = len(detail["loc"]) - 1
    for position, part in enumerate(detail["loc"]):
        is_key = isinstance(data, Mapping) and part in data
        is_index = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        if is_key or is_index:
            data = data[part]  # type: ignore[index]  # checked above
            path.append(part)
        elif position == last and detail["type"] == "missing" and isinstance(part, str):
            path.append(part)
    return tuple(path)


def _mistake(path: Path, details: list[ErrorDetails], data: object, schema: Schema) -> Mistake:
    kinds = {detail["type"] for detail in details}
    if kinds == {"missing"} and not _is_there(data, path):
        return Mistake(path, f"{path[-1]!r} is missing", _allowed(schema, path))
    if kinds == {"extra_forbidden"}:
        known = sorted({key for parent in opened_at(schema, path[:-1]) for key in parent.get("properties", {})})
        allowed = ", ".join(known) or "no parameters"
        return Mistake(path, f"there is no {path[-1]!r} here", allowed, nearest_name(str(path[-1]), known))
    written = _value_at(data, path)
    raised = [str(detail["ctx"]["error"]) for detail in details if detail["type"] in _RAISED and "ctx" in detail]
    raised += [detail["msg"] for detail in details if detail["type"] not in _PYDANTICS]  # PydanticCustomError
    if raised:
        return Mistake(path, "; ".join(dict.fromkeys(raised)))
    choices = [str(choice) for found in opened_at(schema, path) for choice in _choices(found)]
    nearest = nearest_name(written, choices) if isinstance(written, str) else None
    return Mistake(path, f"got {shown(written)}", _allowed(schema, path) or details[0]["msg"], nearest)


def shown(value: object) -> str:
    """Render a user's value as they wrote it in JSON, with its type where that is easily mistaken, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    text = text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
    return f"the text {text}" if isinstance(value, str) else text


def _allowed(schema: Schema, path: Path) -> str | None:
    words = [in_words(found, schema.get("$defs", {})) for found in at_path(schema, path)]
    return " or ".join(dict.fromkeys(words)) or None


def _is_there(data: Any, path: Path) -> bool:
    return not path or path[-1] in _value_at(data, path[:-1]) or isinstance(path[-1], int)


def _value_at(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data


def _choices(found: Schema) -> list[object]:
    return list(found.get("enum", [found["const"]] if "const" in found else []))
