"""The ways a user may hand over a recipe."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import TypeAlias

from pah_opt.recipe.schema import Recipe

RecipeSource: TypeAlias = "Recipe | str | PathLike[str]"
"""A Recipe, the path of a YAML or JSON file, or such text itself."""


def as_recipe(source: RecipeSource) -> Recipe:
    """Return the recipe itself, or read it from a file or text.

    Raises:
        RecipeError: it cannot be read; lists every problem with its line.
    """
    if isinstance(source, Recipe):
        return source
    return Recipe.from_yaml(source if isinstance(source, str) else Path(fspath(source)))
