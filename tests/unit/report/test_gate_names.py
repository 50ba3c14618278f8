from __future__ import annotations

from typing import Any

import pytest

import pah_opt
from pah_opt.errors import RecipeError
from pah_opt.recipe import Gate, Recipe, Step
from pah_opt.report.figures import FIGURES, figure_names
from pah_opt.testing import tiny_vit


def planned(**gates: Any) -> Any:
    recipe = Recipe(steps=(Step.of("magnitude-pruning", sparsity=0.5),), gates=gates)
    return pah_opt.plan(tiny_vit(), recipe)


def test_a_recipe_with_an_unknown_gate_is_refused_before_anything_runs() -> None:
    with pytest.raises(RecipeError, match=r"there is no figure 'top1_dorp_pp'.*did you mean 'top1_drop_pp'"):
        planned(top1_dorp_pp=Gate(max=1.0))


def test_a_recipe_with_known_gates_can_be_planned() -> None:
    assert planned(top1_drop_pp=Gate(max=1.0), size_x=Gate(min=1.1)).steps


def test_figures_of_plugins_can_be_gates() -> None:
    assert figure_names(["robust_pct"]) == (*FIGURES, "extra.robust_pct")
