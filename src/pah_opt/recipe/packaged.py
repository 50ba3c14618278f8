"""Recipes that a package brings as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.recipe.schema import Recipe

if TYPE_CHECKING:
    from importlib.abc import Traversable


def packaged_recipes(folder: Traversable) -> tuple[Recipe, ...]:
    """Read every ``.yaml`` file of a folder, sorted by file name.

    Args:
        folder: of :func:`importlib.resources.files`, so that recipes are found in a zipped package too.

    Raises:
        RecipeError: one of them is no recipe.
    """
    texts = sorted((entry.name, entry.read_text(encoding="utf-8")) for entry in folder.iterdir() if _is_yaml(entry))
    return tuple(Recipe.from_yaml(text) for _, text in texts)


def _is_yaml(entry: Traversable) -> bool:
    return entry.name.endswith(".yaml")
