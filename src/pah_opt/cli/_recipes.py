"""Recipes as commands read them: compared with the registry before a model is built or an image is read."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pah_opt.recipe import Recipe


def checked(source: str, *, calibration: bool = True, training: bool = True, fresh: bool = False) -> Recipe:
    """Read a recipe and find, without torch, what is wrong with it whatever the model.

    Args:
        source: the name of a preset, or the path of a recipe.
        calibration: whether calibration images will be there.
        training: whether training images will be there.
        fresh: whether the model is known to be one that nothing was done to; if not, the order of steps is left to
            the check that knows the model.

    Raises:
        RecipeError: with every problem.
    """
    from pah_opt.environment import Environment
    from pah_opt.errors import IncompatibleStepsError
    from pah_opt.registry import default_registry, validate
    from pah_opt.report.figures import figure_names

    registry = default_registry()
    recipe = registry.recipe(source)
    with nullcontext() if fresh else suppress(IncompatibleStepsError):
        validate(
            recipe,
            registry,
            environment=Environment(),
            calibration=calibration,
            training=training,
            known_figures=figure_names(registry.metrics),
        )
    return recipe
