"""What a field allows, in words, read from its JSON schema: for error messages and for ``pah-opt list``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_TYPES = {"number": "number", "integer": "whole number", "string": "text", "boolean": "true or false", "null": "null"}
_LIMITS = {
    "minimum": ">= {}", "exclusiveMinimum": "> {}", "maximum": "<= {}", "exclusiveMaximum": "< {}",
    "multipleOf": "a multiple of {}", "pattern": "matching {}",
    "minLength": "at least {} characters", "maxLength": "at most {} characters",
}  # fmt: skip


def in_words(schema: Schema, definitions: Schema | None = None) -> str:
    """Describe a JSON schema in a few words.

    >>> in_words({"type": "number", "minimum": 0, "exclusiveMaximum": 1})
    'number >= 0 and < 1'
    >>> in_words({"anyOf": [{"enum": ["layer", "global"]}, {"type": "null"}]})
    'layer, global or null'
    """
    definitions = definitions if definitions is not None else schema.get("$defs", {})
    schema = resolved(schema, definitions)
    nested = schema.get("anyOf") or schema.get("oneOf")
    if nested:
        return _joined([in_words(alternative, definitions) for alternative in nested])
    if "const" in schema or "enum" in schema:
        return _joined([_value(value) for value in schema.get("enum", [schema.get("const")])])
    text = _type(schema, definitions)
    limits = [_limit(key, schema[key]) for key in _LIMITS if key in schema]
    return f"{text} {' and '.join(limits)}" if limits else text


def resolved(schema: Schema, definitions: Schema) -> Schema:
    """Follow a ``$ref`` (pydantic's ``allOf`` of one reference included); other keys beside it are kept."""
    if len(schema.get("allOf", ())) == 1:
        schema = {**schema["allOf"][0], **{key: value for key, value in schema.items() if key != "allOf"}}
    if "$ref" not in schema:
        return schema
    target = definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
    return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}


def alternatives(schema: Schema, definitions: Schema) -> list[Schema]:
    """Return what a schema leaves open, unions within unions too: itself where it is none."""
    schema = resolved(schema, definitions)
    nested = schema.get("anyOf") or schema.get("oneOf")
    return [found for each in nested for found in alternatives(each, definitions)] if nested else [schema]


def _limit(key: str, value: float | str) -> str:
    if key == "minLength" and value == 1:
        return "that is not empty"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # some versions of pydantic write a limit of 1 as 1.0
    return _LIMITS[key].format(value)


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _joined(parts: list[str]) -> str:
    parts = list(dict.fromkeys(parts))
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"


def _type(schema: Schema, definitions: Schema) -> str:
    kind = schema.get("type")
    if kind == "array":
        return "list of " + _items(schema, definitions)
    if kind == "object":
        return _mapping(schema, definitions)
    return _TYPES.get(str(kind), "any value")


def _items(schema: Schema, definitions: Schema) -> str:
    if "prefixItems" in schema:
        return ", ".join(in_words(item, definitions) for item in schema["prefixItems"])
    words = in_words(schema.get("items", {}), definitions)
    counts = {"at least": schema.get("minItems"), "at most": schema.get("maxItems")}
    count = " and ".join(f"{limit} {number}" for limit, number in counts.items() if number is not None)
    return " ".join(filter(None, (count, f"({words})" if " or " in words else words)))


def _mapping(schema: Schema, definitions: Schema) -> str:
    if "properties" in schema:
        return f"mapping with the keys {', '.join(schema['properties'])}"
    values = schema.get("additionalProperties")
    return f"mapping of names to {in_words(values, definitions)}" if isinstance(values, Mapping) else "mapping"


def at_path(schema: Schema, path: tuple[str | int, ...], definitions: Schema | None = None) -> Iterator[Schema]:
    """Yield the schemas that describe the value at ``path``; several where alternatives meet."""
    definitions = definitions if definitions is not None else schema.get("$defs", {})
    schema = resolved(schema, definitions)
    if not path:
        yield schema
        return
    for alternative in alternatives(schema, definitions):
        child = _child(alternative, path[0])
        if child is not None:
            yield from at_path(child, path[1:], definitions)


def opened_at(schema: Schema, path: tuple[str | int, ...]) -> Iterator[Schema]:
    """Yield what :func:`at_path` does, each alternative of a union (a model that may be null, say) by itself."""
    for found in at_path(schema, path):
        yield from alternatives(found, schema.get("$defs", {}))


def _child(schema: Schema, key: str | int) -> Schema | None:
    if isinstance(key, int):
        fixed = schema.get("prefixItems", ())
        found = fixed[key] if key < len(fixed) else schema.get("items")
    else:
        found = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
    return found if isinstance(found, Mapping) else None
