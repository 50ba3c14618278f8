"""The ways a user may hand over a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from pah_opt import Recipe, Step
from pah_opt.errors import RecipeError
from pah_opt.recipe.sources import as_recipe

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
