"""JSON schemas in words."""

from __future__ import annotations

from typing import Any

import pytest

from pah_opt.recipe.allowed import at_path, in_words

DEFINITIONS = {"$defs": {"Part": {"type": "object", "properties": {"width": {"type": "integer"}}}}}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "number"}, "number"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "number >= 0 and <= 1"),
        ({"type": "integer", "exclusiveMinimum": 0, "multipleOf": 8}, "whole number > 0 and a multiple of 8"),
        ({"type": "string", "minLength": 1}, "text that is not empty"),
        ({"type": "string", "minLength": 2, "pattern": "^a"}, "text matching ^a and at least 2 characters"),
        ({"type": "boolean"}, "true or false"),
        ({"const": "auto"}, "auto"),
        ({"enum": ["a", 2, None]}, "a, 2 or null"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "number or null"),
        ({"anyOf": [{"type": "number"}, {"type": "number"}]}, "number"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 1}, "list of at least 1 text"),
        (
            {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 3},
            "list of at least 1 and at most 3 null",
        ),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, "list of (a or b)"),
        ({"type": "array"}, "list of any value"),
        (
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
            "list of whole number, text",
        ),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "mapping of names to number"),
        ({"type": "object", "additionalProperties": True}, "mapping"),
        ({"$ref": "#/$defs/Part", **DEFINITIONS}, "mapping with the keys width"),
        ({"allOf": [{"$ref": "#/$defs/Part"}], **DEFINITIONS}, "mapping with the keys width"),
        ({"$ref": "#/$defs/Gone"}, "any value"),
        ({}, "any value"),
    ],
)
def test_a_schema_is_said_in_words(schema: dict[str, Any], words: str) -> None:
    assert in_words(schema) == words


def test_a_path_leads_through_lists_mappings_references_and_alternatives() -> None:
    schema = {
        "properties": {
            "parts": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/Part"}}, {"type": "null"}]},
            "pair": {"prefixItems": [{"type": "integer"}]},
            "named": {"additionalProperties": {"type": "number"}},
        },
        **DEFINITIONS,
    }

    def found(*path: str | int) -> list[str]:
        return [in_words(part, DEFINITIONS["$defs"]) for part in at_path(schema, path)]

    assert found("parts", 3, "width") == ["whole number"]
    assert found("pair", 0) == ["whole number"]
    assert found("pair", 1) == []
    assert found("named", "anything") == ["number"]
    assert found("missing") == []
