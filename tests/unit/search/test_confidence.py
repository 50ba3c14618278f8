"""How sure a search must be that a limit on accuracy holds on images that did not decide."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import pah_opt
from pah_opt.errors import RecipeError, SearchError
from pah_opt.search import Budget, Record
from pah_opt.search.racing import Rivals
from pah_opt.search.verdict import no_pick, unlucky

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.search import SearchResult
    from pah_opt.search.judge import Judge
    from pah_opt.splits import Data

HALF = pah_opt.Recipe(
    name="half", steps=[pah_opt.Step.of("structured-pruning", mlp=0.5, importance="magnitude", repair="none")]
)
FIGURES = {"top1_drop_pp": 0.8, "top1_drop_error_pp": 0.5}


def test_a_drop_counts_with_its_error_once_it_must_be_sure() -> None:
    assert Budget(top1_drop_pp=1.0).excess(FIGURES) == {}
    assert Budget(top1_drop_pp=1.0, confidence=0.9).excess(FIGURES) == {"top1_drop_pp": pytest.approx(0.44, abs=0.01)}
    assert Budget(top1_drop_pp=1.0, confidence=0.6).excess(FIGURES) == {}


def test_the_limit_itself_stays_the_gate_of_the_pick() -> None:
    gated = Budget(top1_drop_pp=1.0, confidence=0.9).gated(HALF)
    assert {name: gate.max for name, gate in gated.gates.items()} == {"top1_drop_pp": 1.0}


def test_the_error_of_a_trial_is_that_of_images_seen_by_both_models(judge: Judge) -> None:
    looker = judge.prepare()
    wholly = replace(judge, racing=False, looker=replace(looker, racing=False))
    found = wholly(HALF, Rivals({}), Record(0, "done", None)).figures
    images = len(judge.validation)
    lost = round((found["top1_drop_pp"] or 0.0) * images / 100)
    assert lost > 0, "the dense model is right on every image, so each image lost is a flip"
    assert found["top1_drop_error_pp"] == pytest.approx(100 * np.sqrt(lost) / images)


def test_what_few_images_promise_holds_on_others_more_often() -> None:
    """Drawn at random: how often a recipe that truly loses 2 points is taken for one that keeps a limit of 1."""
    rng = np.random.default_rng(0)
    images, limit = 400, 1.0
    budgets = Budget(top1_drop_pp=limit), Budget(top1_drop_pp=limit, confidence=0.9)
    kept = [0, 0]
    for _ in range(2000):
        worse, better = rng.binomial(images, 0.03), rng.binomial(images, 0.01)
        figures = {
            "top1_drop_pp": 100.0 * (worse - better) / images,
            "top1_drop_error_pp": 100.0 * np.sqrt(worse + better) / images,
        }
        for at, budget in enumerate(budgets):
            kept[at] += not budget.excess(figures)
    assert kept[0] / 2000 > 0.15
    assert kept[1] / 2000 < 0.05


@pytest.mark.parametrize("confidence", [0.5, 1.0, 90])
def test_confidence_is_a_share_above_chance(confidence: float) -> None:
    with pytest.raises(RecipeError, match="confidence"):
        Budget.of({"confidence": confidence})


def test_no_number_of_images_shows_that_nothing_is_lost() -> None:
    with pytest.raises(RecipeError, match=r"top1_drop_pp 0 with confidence 0\.9: .*allow a drop above 0"):
        Budget.of({"top1_drop_pp": 0, "confidence": 0.9})


def test_too_few_images_to_be_sure_are_said_before_any_trial(model: nn.Module, data: Data) -> None:
    space = "steps: [{use: magnitude-pruning, with: {sparsity: {low: 0.1, high: 0.5}}}]"
    with pytest.raises(SearchError, match=r"119 validation images cannot show .* takes 257 or more .*top1_drop_pp"):
        pah_opt.search(model, data, {"top1_drop_pp": 0.5, "confidence": 0.9}, space=space)


def test_what_came_nearest_is_named_with_its_error() -> None:
    budget = Budget(minimise="size", top1_drop_pp=1.0, confidence=0.9)
    record = Record(3, "done", HALF.to_data(), figures={**FIGURES, "artifact_bytes": 1.0})
    assert "top1_drop_pp 0.8 (its error 0.5, confidence 0.9)" in no_pick([record], budget, {}, "time")


@pytest.fixture(scope="module")
def result(model: nn.Module, data: Data) -> SearchResult:
    space = "steps: [{use: magnitude-pruning, with: {sparsity: {low: 0.3, high: 0.5}}}]"
    measure = pah_opt.MeasureSettings.quick(groups={"accuracy"})
    return pah_opt.search(
        model, data, {"minimise": "size", "top1_drop_pp": 90}, space=space, trials=1, calibration_images=16,
        measure=measure,
    )  # fmt: skip


def test_a_pick_that_was_lucky_is_said_with_what_helps(result: SearchResult) -> None:
    assert result.report is not None
    assert unlucky(result.report, result) == []
    (drop,) = (-model.accuracy.top1_delta_pp for model in result.report.models[1:])
    assert drop > 0.5
    strict = replace(result, budget=Budget(top1_drop_pp=0.5))
    (note,) = unlucky(result.report, strict)
    assert f"loses {drop:.1f} pp on the test images, more than the limit of 0.5 pp" in note
    assert "confidence=0.9" in note
    (sure,) = unlucky(result.report, replace(result, budget=Budget(top1_drop_pp=0.5, confidence=0.9)))
    assert "confidence" not in sure
