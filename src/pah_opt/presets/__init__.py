"""Plugin: the recipes that ship with the library, one for each goal. ``pah-opt presets`` lists them."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from pah_opt.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.recipe import Recipe

pah_opt_api_version = 1


@hookimpl
def pah_opt_presets() -> Iterable[Recipe]:
    """Return the shipped recipes, sorted by name."""
    from pah_opt.recipe import packaged_recipes

    return packaged_recipes(files(__name__))
