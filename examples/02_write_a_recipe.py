"""Write a recipe, have it checked, and see what it would leave before anything is touched.

Teaches: recipes as data in YAML, errors that name everything that is wrong, `pah_opt.plan`.
Output:
    typo.yaml cannot be used: there is no 'sparsty' here
    half-width: 205,002 -> 105,802 parameters, 3.54 -> 1.79 million MACs
"""

from __future__ import annotations

import pah_opt
from pah_opt.adapt import digits_vit
from pah_opt.errors import RecipeError

TYPO = """
steps:
  - use: magnitude-pruning
    with: {sparsty: 0.5}
"""
HALF_WIDTH = """
name: half-width
steps:
  - use: structured-pruning
    with: {heads: 0.5, mlp: 0.5}
"""


def main() -> None:
    """Plan a wrong recipe, then a right one."""
    model = digits_vit()
    try:
        pah_opt.plan(model, TYPO)
    except RecipeError as error:
        print(f"typo.yaml cannot be used: {error.problems[0].message}")

    recipe = pah_opt.Recipe.from_yaml(HALF_WIDTH)
    plan = pah_opt.plan(model, recipe).to_data()
    before, after = plan["before"], plan["steps"][-1]["after"]
    print(
        f"{recipe.name}: {before['params']:,} -> {after['params']:,} parameters, "
        f"{before['macs'] / 1e6:.2f} -> {after['macs'] / 1e6:.2f} million MACs"
    )


if __name__ == "__main__":
    main()
