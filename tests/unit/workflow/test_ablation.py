from __future__ import annotations

from typing import Any

import pytest

from pah_opt.errors import RecipeError
from pah_opt.measure.model_report import Env, ModelReport
from pah_opt.measure.schema import Accuracy, Memory, ModelSize, Provenance, VsBaseline
from pah_opt.recipe import Gate, Recipe, Step
from pah_opt.report import Report
from pah_opt.testing import tiny_vit
from pah_opt.workflow.ablation import Ablation, after_name, attribution, attribution_table, without_name

PRUNE = Step.of("magnitude-pruning", sparsity=0.5)
NARROW = Step.of("structured-pruning", mlp=0.5)
INT8 = Step.of("torchao", scheme="int8-weight-only")


def recipe(*steps: Step, **changes: Any) -> Recipe:
    return Recipe(name="mix", steps=steps, **changes)


def test_a_recipe_is_varied_by_its_beginnings_and_by_leaving_steps_out() -> None:
    found = Ablation.of(recipe(PRUNE, INT8, gates={"top1_drop_pp": Gate(max=1)}), tiny_vit())
    used = {variant.name: [step.use for step in variant.steps] for variant in found.variants}
    assert used == {
        "mix": ["magnitude-pruning", "torchao"],
        "mix.after-1-magnitude-pruning": ["magnitude-pruning"],
        "mix.without-1-magnitude-pruning": ["torchao"],
    }
    assert found.refused == {}
    assert [bool(variant.gates) for variant in found.variants] == [True, False, False]


def test_three_steps_have_two_beginnings_and_two_gaps() -> None:
    whole = recipe(NARROW, PRUNE, INT8)
    names = [variant.name for variant in Ablation.of(whole, tiny_vit()).variants]
    assert len(names) == len(set(names)) == 5
    assert without_name(whole, 2) == after_name(whole, 2)


def test_one_step_has_no_variants() -> None:
    assert [variant.name for variant in Ablation.of(recipe(PRUNE), tiny_vit()).variants] == ["mix"]


def test_a_recipe_that_cannot_be_run_is_refused_whole() -> None:
    with pytest.raises(RecipeError):
        Ablation.of(recipe(INT8, NARROW), tiny_vit())


def a_model(name: str, top1: float, size: float, speed: float) -> ModelReport:
    why = "not measured in this test"
    versus: dict[str, Any] = {"baseline_id": "dense", "size_x": size, "speedup_p50_x": speed}
    return ModelReport(
        id=name, type="ViT", provenance=Provenance.having(why), timings=(), memory=Memory.having(why),
        accuracy=Accuracy.having(why, top1_delta_pp=top1), model=ModelSize.having(why),
        vs_baseline=VsBaseline.having(why, **versus),
    )  # fmt: skip


def a_report(*models: ModelReport) -> Report:
    return Report(env=Env.having("not described in this test"), baseline_id="dense", models=models)


def test_steps_are_credited_with_what_they_change() -> None:
    whole = recipe(PRUNE, INT8)
    report = a_report(
        a_model("dense", 0.0, 1.0, 1.0), a_model("mix", -1.5, 8.0, 2.0),
        a_model("mix.after-1-magnitude-pruning", -0.5, 2.0, 1.0),
        a_model("mix.without-1-magnitude-pruning", -0.4, 4.0, 2.0),
    )  # fmt: skip
    credited = {(credit.step, credit.figure): (credit.added, credit.left_out) for credit in attribution(report, whole)}
    assert credited["1. magnitude-pruning", "top1_delta_pp"] == pytest.approx((-0.5, -1.1))
    assert credited["1. magnitude-pruning", "size_x"] == pytest.approx((2.0, 2.0))
    assert credited["2. torchao", "top1_delta_pp"] == pytest.approx((-1.0, -1.0))
    assert credited["2. torchao", "size_x"] == pytest.approx((4.0, 4.0))
    assert credited["2. torchao", "speedup_p50_x"] == pytest.approx((2.0, 2.0))


def test_what_could_not_be_run_has_no_credit() -> None:
    whole = recipe(PRUNE, INT8)
    report = a_report(a_model("dense", 0.0, 1.0, 1.0), a_model("mix", -1.5, 8.0, 2.0))
    assert all(credit.left_out is None for credit in attribution(report, whole) if credit.step.startswith("1"))


def test_the_table_has_two_rows_for_each_step() -> None:
    whole = recipe(PRUNE)
    headers, added, left_out = attribution_table(
        a_report(a_model("dense", 0, 1, 1), a_model("mix", -0.5, 2.0, 1.0)), whole
    )
    assert headers[:3] == ("step", "", "top1_delta_pp")
    assert added[:4] == ("1. magnitude-pruning", "added", "-0.50", "x 2.00")
    assert left_out[1:4] == ("left out", "-0.50", "x 2.00")
