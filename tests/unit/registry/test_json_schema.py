"""A JSON Schema of recipes, for editors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pah_opt import Recipe
from pah_opt.environment import Environment
from pah_opt.errors import RecipeError
from pah_opt.registry import Registry, default_registry, recipe_schema, validate


@pytest.fixture
def schema(registry: Registry) -> dict[str, Any]:
    return recipe_schema(registry)


GOOD = [
    {"steps": [{"use": "prune"}]},
    {"name": "a", "seed": 3, "steps": [{"use": "prune", "with": {"ratio": 0.25, "scope": "global"}}]},
    {"steps": [{"use": "quantize", "with": {"scheme": "int8"}}], "gates": {"top1_pct": {"min": 90}}},
]
BAD = [
    {},
    {"steps": []},
    {"steps": [{"use": "prunes"}]},
    {"steps": [{"with": {}}]},
    {"steps": [{"use": "prune", "with": {"ratio": 1}}]},
    {"steps": [{"use": "prune", "with": {"ratio": "0.5"}}]},
    {"steps": [{"use": "prune", "with": {"scop": "global"}}]},
    {"steps": [{"use": "prune", "with": {"scheme": "int8"}}]},
    {"steps": [{"use": "quantize"}]},
    {"steps": [{"use": "quantize", "with": {}}]},
    {"steps": [{"use": "quantize", "with": {"scheme": "int9"}}]},
    {"steps": [{"use": "prune"}], "sed": 1},
    {"steps": [{"use": "prune"}], "seed": -1},
    {"steps": [{"use": "prune"}], "name": "two words"},
]


def test_it_is_a_valid_schema_of_draft_2020_12(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


def test_the_schema_of_everything_installed_is_valid() -> None:
    schema = recipe_schema(default_registry())
    Draft202012Validator.check_schema(schema)
    assert schema["$defs"]["Step"]["properties"]["use"]["enum"] == list(default_registry().optimizers)


def test_the_schema_without_any_strategy_is_valid_and_accepts_no_step() -> None:
    schema = recipe_schema(Registry())
    Draft202012Validator.check_schema(schema)
    assert not Draft202012Validator(schema).is_valid(GOOD[0])


@pytest.mark.parametrize("data", GOOD)
def test_what_validation_accepts_the_schema_accepts(data: Any, schema: dict[str, Any], registry: Registry) -> None:
    assert Draft202012Validator(schema).is_valid(data)
    assert validate(Recipe.model_validate(data), registry, environment=Environment(cuda=False))


@pytest.mark.parametrize("data", BAD)
def test_what_validation_refuses_the_schema_refuses(data: Any, schema: dict[str, Any], registry: Registry) -> None:
    assert not Draft202012Validator(schema).is_valid(data)
    with pytest.raises(RecipeError):
        validate(Recipe.from_json(json.dumps(data)), registry, environment=Environment(cuda=False))


def test_parameters_and_strategies_carry_their_documentation(schema: dict[str, Any]) -> None:
    use = schema["$defs"]["Step"]["properties"]["use"]
    documented = dict(zip(use["enum"], use["markdownEnumDescriptions"], strict=True))
    assert documented["prune"] == "Removes what matters least."
    assert schema["$defs"]["prune"]["properties"]["ratio"]["description"] == "Share that goes."
    assert schema["properties"]["seed"]["description"].startswith("Seeds every random choice")
