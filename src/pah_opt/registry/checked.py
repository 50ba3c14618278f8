"""A recipe that passed validation: every step with its Optimizer, typed config, and what it declares for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pah_opt.optimizer import AnyOptimizer, Effect, Needs, OptimizerConfig, Tags
    from pah_opt.recipe import Recipe, Step


@dataclass(frozen=True)
class CheckedStep:
    """One step, ready to run.

    Args:
        index: zero-based place in the recipe.
        step: as the user wrote it.
        optimizer: the strategy.
        config: its parameters, typed, with every default.
        tags: how it changes state tags.
        needs: what it needs besides the model.
        promises: the effect that is verified after it.
        align: multiple that widths should have after it, because a later step asks for it; at least 1.
    """

    index: int
    step: Step
    optimizer: AnyOptimizer
    config: OptimizerConfig
    tags: Tags
    needs: Needs
    promises: Effect
    align: int = 1


@dataclass(frozen=True)
class CheckedRecipe:
    """A recipe whose names, parameters, needs and order are right.

    Args:
        recipe: as the user wrote it.
        steps: each step, ready to run.
        initial_tags: state tags of the model before the first step.
    """

    recipe: Recipe
    steps: tuple[CheckedStep, ...]
    initial_tags: frozenset[str]
