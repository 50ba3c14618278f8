"""The ways a user may hand over a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias

from pah_opt.errors import RecipeError
from pah_opt.recipe.schema import Recipe

RecipeSource: TypeAlias = "Recipe | Mapping[str, Any] | str | PathLike[str]"
"""A Recipe, its data, the path of a YAML or JSON file, or such text itself."""


def as_recipe(source: RecipeSource) -> Recipe:
    """Return the recipe itself, or make it of its data, or read it from a file or text.

    >>> as_recipe({"steps": [{"use": "cast", "with": {"dtype": "bf16"}}]}).steps[0].use
    'cast'

    Raises:
        RecipeError: it is none of these, or cannot be read; lists every problem, with its line where there is one.
    """
    if isinstance(source, Recipe):
        return source
    if isinstance(source, Mapping):
        return Recipe(**as_fields(source))
    return Recipe.from_yaml(path_or_text(source, "recipe", "pah_opt.Recipe(steps=[...])"))


def as_fields(data: Mapping[Any, Any]) -> dict[str, Any]:
    """Return data by names: a name that is no text, which no field has, is refused among the unknown ones."""
    return {str(name): value for name, value in data.items()}


def path_or_text(source: str | PathLike[str], what: str, made_by: str) -> str | Path:
    """Return what can be read.

    Raises:
        RecipeError: it is something else; says how to make ``what`` of it.
    """
    if isinstance(source, str):
        return source
    if isinstance(source, PathLike):
        return Path(fspath(source))
    raise RecipeError(
        f"a {what} cannot be read from a {type(source).__name__}; give its data (a mapping), the name of one that "
        f"comes with the library, the path or text of a YAML or JSON file, or {made_by}"
    )
