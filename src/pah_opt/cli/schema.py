"""``pah-opt schema``: a JSON Schema of recipes for editors."""

from __future__ import annotations

import click

from pah_opt.cli._help import examples
from pah_opt.cli._output import print_json


@click.command(epilog=examples("pah-opt schema > recipe.schema.json"))
def command() -> None:
    """Print a JSON Schema of recipes, for completion in editors.

    Save it as recipe.schema.json, and let a recipe start with the line:

    # yaml-language-server: $schema=recipe.schema.json
    """
    from pah_opt.registry import default_registry, recipe_schema

    print_json(recipe_schema(default_registry()))
