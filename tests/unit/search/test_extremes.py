"""What planning alone says of a space and its limits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pah_opt.errors import RecipeError
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.search import Budget, Space
from pah_opt.search.bound import BoundSpace
from pah_opt.search.extremes import Extremes, check_limits

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.recipe import Recipe
    from pah_opt.search.judge import Judge

TWO = """
steps:
  - {use: magnitude-pruning, with: {sparsity: {low: 0.1, high: 0.9}}}
  - {use: structured-pruning, with: {mlp: {low: 0.1, high: 0.9}}}
"""


def bound(text: str, model: nn.Module) -> BoundSpace:
    registry = default_registry()
    return BoundSpace.of(Space.from_yaml(text), registry, model, find_adapter(model, registry.adapters).layout(model))


def opposed() -> Judge:
    """A judge for whom parameters and MACs want opposite things, between 1.2 and 2.8 each."""

    def predict(recipe: Recipe) -> dict[str, float]:
        sparsity, mlp = (next(iter(step.with_.values())) for step in recipe.steps)
        return {"params": 2.0 + sparsity - mlp, "macs": 2.0 - sparsity + mlp}

    return cast("Judge", SimpleNamespace(predict=predict, dense={}))


def test_every_figure_gets_plans_of_its_own(model: nn.Module) -> None:
    extremes = Extremes(bound(TWO, model), opposed(), most_plans=6)
    for figure in ("params", "macs"):
        least = extremes.least(figure)
        assert least is not None
        assert least[0] == pytest.approx(1.2), figure


def test_limits_that_can_be_met_alone_and_not_together_are_doubted(model: nn.Module) -> None:
    """Their sum is always 4."""
    doubt = check_limits(bound(TWO, model), opposed(), Budget(params=1.5, macs=1.5)).doubt
    assert "no recipe that was planned meets macs and params together" in str(doubt)
    assert "misses them by 67 %" in str(doubt)
    assert check_limits(bound(TWO, model), opposed(), Budget(params=2.1, macs=2.1)).doubt is None


def test_a_space_of_which_nothing_can_run_is_said_with_the_first_reason(model: nn.Module, judge: Judge) -> None:
    space = bound("steps: [{use: input-size, with: {size: {choices: [17, 19]}}}]", model)
    with pytest.raises(RecipeError, match=r"(?s)none of the recipes .* can be run; the first of them.*19"):
        check_limits(space, judge, Budget())


def test_one_recipe_that_can_run_is_enough(model: nn.Module, judge: Judge) -> None:
    space = bound("steps: [{use: input-size, with: {size: {choices: [17, 8, 19, 21, 23]}}}]", model)
    assert check_limits(space, judge, Budget()).strongest == []
