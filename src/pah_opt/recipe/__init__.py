"""Recipes: ordered steps, a seed and gates, as frozen data (Python, YAML and JSON are one and the same)."""

from pah_opt.recipe.packaged import packaged_recipes
from pah_opt.recipe.schema import Gate, Recipe, Step

__all__ = ["Gate", "Recipe", "Step", "packaged_recipes"]
