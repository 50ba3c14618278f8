"""Python, YAML and JSON are one and the same thing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pah_opt import Gate, Recipe, Step
from pah_opt.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LIKE_OTHER_VALUES = [
    "on",
    "off",
    "yes",
    "no",
    "y",
    "n",
    "null",
    "~",
    "true",
    "1e-4",
    "1_000",
    "0x10",
    "0o7",
    ".inf",
    "2024-01-01",
    "12:30:45",
    "=",
    "<<",
    "---",
    "...",
]
LIKE_SYNTAX = ["a: b", "a #b", "- a", "? a", "{", "&a", "*a", "!a", "%a", "@a", "`a`", "'", '"', "\\", "a,b", "[a]"]
WHITE_SPACE = ["", " ", " a", "a ", "a\n", "\na", "a\n\nb", "a\r\nb", "\t", "\x85", "\u2028", "\ufeff", "\xa0"]
UNUSUAL = ["é", "日本", "\U0001f600", "\x00", "\x7f", "\uffff", "x" * 200]
awkward = st.sampled_from(LIKE_OTHER_VALUES + LIKE_SYNTAX + WHITE_SPACE + UNUSUAL)
number = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
value = st.recursive(
    st.none() | st.booleans() | number | text | awkward,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text | awkward, inner, max_size=4),
    max_leaves=12,
)
steps = st.builds(
    lambda use, parameters: Step(use=use, **{"with": parameters}),
    (text | awkward).filter(bool),
    st.dictionaries(text | awkward, value, max_size=5),
)
limit = st.floats(allow_nan=False, allow_infinity=False)
gates = st.builds(Gate, max=limit) | st.builds(Gate, min=limit)
recipes = st.builds(
    Recipe,
    name=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._+-]{0,30}\Z"),
    description=text | awkward,
    seed=st.integers(0, 2**63 - 1),
    steps=st.lists(steps, min_size=1, max_size=4),
    gates=st.dictionaries(text | awkward, gates, max_size=3),
)
thorough = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])


def exact(recipe: Recipe) -> str:
    """Render everything a recipe holds; unlike ``==``, tells 1 from 1.0 and True, and -0.0 from 0.0."""
    return json.dumps(recipe.model_dump(mode="json", by_alias=True))


@thorough
@given(recipes)
def test_yaml_reads_back_exactly(recipe: Recipe) -> None:
    again = Recipe.from_yaml(recipe.to_yaml())
    assert again == recipe
    assert exact(again) == exact(recipe)


@thorough
@given(recipes)
def test_json_reads_back_exactly(recipe: Recipe) -> None:
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert exact(again) == exact(recipe)
    assert json.loads(recipe.to_json()) == recipe.to_data()


@thorough
@given(recipes)
def test_compact_json_of_other_writers_reads_back_exactly(recipe: Recipe) -> None:
    ascii_only = json.dumps(recipe.to_data(), ensure_ascii=True, separators=(",", ":"))
    assert exact(Recipe.from_json(ascii_only)) == exact(recipe)


@settings(max_examples=100)
@given(recipes)
def test_the_hash_is_the_same_in_every_form(recipe: Recipe) -> None:
    assert Recipe.from_yaml(recipe.to_yaml()).sha256 == recipe.sha256
    assert Recipe.from_json(recipe.to_json()).sha256 == recipe.sha256


@settings(max_examples=200)
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_any_text_gives_a_recipe_or_a_recipe_error(garbage: str) -> None:
    found: list[Recipe | str] = []
    try:
        found.append(Recipe.from_yaml(garbage + "\n"))
    except RecipeError as error:
        found += map(str, error.problems)
    assert all(found)  # any other exception fails, and so does an error that says nothing
    assert [Recipe.from_yaml(r.to_yaml()) for r in found if isinstance(r, Recipe)] in ([], found)


@pytest.mark.parametrize("parameter", ["on", "no", "2024-01-01", "null", "1e-4", "0x10"])
def test_text_that_looks_like_something_else_is_quoted_for_readers_of_any_yaml(parameter: str) -> None:
    written = Recipe(steps=[Step.of("cast", x=parameter)]).to_yaml()
    assert yaml.safe_load(written)["steps"][0]["with"]["x"] == parameter


def test_simple_recipes_are_written_simply() -> None:
    recipe = Recipe(
        name="half",
        steps=[Step.of("torchao", scheme="int8-dynamic", skip=["classifier"])],
        gates={"top1_pct": Gate(min=90)},
    )
    assert recipe.to_yaml() == (
        "name: half\n"
        "steps:\n"
        "- use: torchao\n"
        "  with: {scheme: int8-dynamic, skip: [classifier]}\n"
        "gates:\n"
        "  top1_pct:\n"
        "    min: 90.0\n"
    )


def test_the_hash_does_not_depend_on_the_order_of_parameters() -> None:
    one = Recipe(steps=[Step.of("a", x=1, y=2)])
    assert one.sha256 == Recipe(steps=[Step.of("a", y=2, x=1)]).sha256
    assert one.sha256 != Recipe(steps=[Step.of("a", x=1, y=3)]).sha256


def test_files_are_read_as_text_is(tmp_path: Path) -> None:
    recipe = Recipe(name="half", description="Ä", steps=[Step.of("a", x=[1, {"b": None}])])
    for suffix, written in (("yaml", recipe.to_yaml()), ("json", recipe.to_json())):
        path = tmp_path / f"recipe.{suffix}"
        path.write_text(written, encoding="utf-8")
        read: Any = Recipe.from_yaml(path)
        assert read == recipe == Recipe.from_yaml(str(path))
