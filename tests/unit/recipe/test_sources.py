"""The ways a user may hand over a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pah_opt import Recipe, Step
from pah_opt.errors import RecipeError
from pah_opt.recipe.sources import as_recipe
from pah_opt.search.space import as_space

TEXT = "steps: [{use: cast}]\n"


class Named:
    """A path of another library."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def test_a_recipe_is_itself() -> None:
    recipe = Recipe(steps=[Step.of("cast")])
    assert as_recipe(recipe) is recipe


def test_text_and_paths_of_every_kind_are_read(tmp_path: Path) -> None:
    path = tmp_path / "half.yaml"
    path.write_text(TEXT)
    expected = Recipe(steps=[Step.of("cast")])
    assert [as_recipe(source) for source in (TEXT, path, str(path), Named(path))] == [expected] * 4


@pytest.mark.parametrize("source", [Path("steps: [{use: cast}]"), Path("a: b")])
def test_a_path_is_never_taken_for_text(source: Path) -> None:
    with pytest.raises(RecipeError, match="No such file"):
        as_recipe(source)


def test_data_is_a_recipe_and_what_is_wrong_with_it_is_said() -> None:
    data = {"name": "half", "steps": [{"use": "cast", "with": {"dtype": "bf16"}}]}
    assert as_recipe(data).to_data() == data
    with pytest.raises(RecipeError, match="stepz"):
        as_recipe({"stepz": []})
    with pytest.raises(RecipeError, match="'1'"):
        as_recipe({1: "one", "steps": data["steps"]})  # type: ignore[dict-item]


@pytest.mark.parametrize("given", [None, 3, [Step.of("cast", dtype="bf16")]])
def test_what_is_no_recipe_is_refused_with_what_is(given: Any) -> None:
    with pytest.raises(RecipeError, match=rf"a recipe cannot be read from a {type(given).__name__}; .*Recipe\(steps="):
        as_recipe(given)


def test_a_space_may_be_given_as_data_too() -> None:
    data = {"name": "mine", "steps": [{"use": "cast", "with": {"dtype": {"choices": ["bf16", "fp16"]}}}]}
    assert as_space(data).to_data() == data
    with pytest.raises(RecipeError, match="a space cannot be read from a list"):
        as_space([])  # type: ignore[arg-type]
