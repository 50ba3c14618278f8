"""Plain values mean what YAML 1.2's core schema says."""

from __future__ import annotations

from typing import Any

import pytest

from pah_opt import Recipe
from pah_opt.recipe.yaml_text import plain_value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, text) for text in ("on", "off", "yes", "No", "y", "N", "2024-01-01", "12:30:45", "1_000")),
        *((text, text) for text in ("0b1", "=", "<<", "1.2.3")),
        *((text, None) for text in ("null", "Null", "NULL", "~", "")),
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, False) for text in ("false", "False", "FALSE")),
        *((text, text) for text in ("tRUE", "nULL", ".infinity", "nan", "inf", "e5", ".", "-", "1e", "0o8", "0xg")),
        ("1e-4", 1e-4), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-0.5", -0.5), ("+1.5e+3", 1500.0),
        ("0", 0), ("-3", -3), ("+3", 3), ("007", 7), ("0o17", 15), ("0xFF", 255),
    ],
)  # fmt: skip
def test_plain_text_is_what_yaml_1_2_says(text: str, expected: Any) -> None:
    value = plain_value(text)
    assert value == expected
    assert type(value) is type(expected)


def test_quoted_values_are_always_text() -> None:
    recipe = Recipe.from_yaml("steps:\n- use: a\n  with:\n    x: 'true'\n    y: \"1\"\n    z: ''\n    w: |-\n      3\n")
    assert recipe.steps[0].parameters == {"x": "true", "y": "1", "z": "", "w": "3"}


def test_an_empty_value_is_null() -> None:
    assert Recipe.from_yaml("steps:\n- use: a\n  with:\n    x:\n").steps[0].parameters == {"x": None}
