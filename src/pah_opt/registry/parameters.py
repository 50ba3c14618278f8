"""A step's parameters become its Optimizer's typed config, or a list of everything that is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.errors import Problem
from pah_opt.recipe.mistakes import read_strictly

if TYPE_CHECKING:
    from pah_opt.optimizer import AnyOptimizer, OptimizerConfig
    from pah_opt.recipe import Recipe
    from pah_opt.recipe.mistakes import Mistake


def typed_config(recipe: Recipe, index: int, optimizer: AnyOptimizer) -> OptimizerConfig | list[Problem]:
    """Validate the parameters of one step, strictly: no text is taken for a number.

    Args:
        recipe: the recipe.
        index: zero-based index of the step.
        optimizer: what the step names.
    """
    config: OptimizerConfig | list[Mistake] = read_strictly(optimizer.config_type, recipe.steps[index].parameters)
    if not isinstance(config, list):
        return config
    remedy = f"parameters: pah-opt list {optimizer.name}"
    return [
        Problem(m.message, recipe.place("steps", index, "with", *m.path), m.allowed, m.nearest, remedy) for m in config
    ]
