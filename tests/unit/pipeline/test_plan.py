from __future__ import annotations

import pytest
import torch
from torch import nn

import pah_opt
from pah_opt import Recipe, Step
from pah_opt.errors import RecipeError
from pah_opt.pipeline.copies import meta_copy
from pah_opt.testing import tiny_data


def test_meta_copy_holds_shapes_and_no_values(model: nn.Module) -> None:
    twin = meta_copy(model)
    assert all(tensor.is_meta for tensor in (*twin.parameters(), *twin.buffers()))
    assert {n: t.shape for n, t in twin.named_parameters()} == {n: t.shape for n, t in model.named_parameters()}
    assert not any(tensor.is_meta for tensor in model.parameters())


def test_plan_needs_no_weights(model: nn.Module) -> None:
    plan = pah_opt.plan(model.to("meta"), Recipe(steps=(Step.of("scale"),)))
    assert plan.before.params == plan.steps[0].figures.params > 0
    assert plan.before.macs > 0


def test_plan_fills_in_defaults(model: nn.Module) -> None:
    plan = pah_opt.plan(model, Recipe(steps=(Step.of("scale"),)))
    assert plan.steps[0].config == {"factor": 1.0}


def test_plan_leaves_the_model_alone(model: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pah_opt.plan(model, Recipe(steps=(Step.of("shrinks"),)))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_plan_predicts_the_shapes_after_a_step(model: nn.Module) -> None:
    plan = pah_opt.plan(model, Recipe(steps=(Step.of("shrinks"), Step.of("scale"))))
    assert plan.steps[0].figures.params < plan.before.params
    assert plan.steps[1].figures.macs == plan.steps[0].figures.macs < plan.before.macs


def test_a_dry_run_that_fails_is_a_problem_of_that_step(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.pipeline.conftest import Scale

    def fail(*_: object) -> nn.Module:
        raise KeyError("surprise")

    monkeypatch.setattr(Scale, "apply", fail)
    with pytest.raises(RecipeError, match=r"step 1 \(scale\).*KeyError: 'surprise'"):
        pah_opt.plan(model, Recipe(steps=(Step.of("scale"),)))


@pytest.mark.parametrize(
    ("error", "has_remedy"), [(ValueError("no row for width 32"), False), (RuntimeError("a tensor on meta"), True)]
)
def test_only_errors_of_tensors_without_values_are_blamed_on_them_and_every_one_is_chained(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, error: Exception, has_remedy: bool
) -> None:
    from tests.unit.pipeline.conftest import Scale

    def fail(*_: object) -> nn.Module:
        raise error

    monkeypatch.setattr(Scale, "apply", fail)
    with pytest.raises(RecipeError) as caught:
        pah_opt.plan(model, Recipe(steps=(Step.of("scale"), Step.of("shrinks"))))
    assert caught.value.__cause__ is error
    assert len(caught.value.problems) == 1
    assert ("must also work on the meta device" in str(caught.value)) == has_remedy


def test_a_forgotten_return_is_said_as_such(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.pipeline.conftest import Scale

    monkeypatch.setattr(Scale, "apply", lambda *_: None)
    with pytest.raises(RecipeError, match="apply returned None; it must return the model: return model"):
        pah_opt.plan(model, Recipe(steps=(Step.of("scale"),)))


def test_plan_decides_what_auto_stands_for_as_apply_does(model: nn.Module) -> None:
    recipe = Recipe(steps=(Step.of("structured-pruning", mlp=0.5), Step.of("depth-pruning", count=1)))
    images, bare = pah_opt.plan(model, recipe), pah_opt.plan(model, recipe, calibration=False)
    assert [step.notes["repair"] for step in images.steps] == ["least-squares", "least-squares"]
    assert [step.notes["importance"] for step in images.steps] == ["surgeon", "similarity"]
    assert [step.notes["repair"] for step in bare.steps] == ["none", "none"]
    made = pah_opt.apply(model, recipe, tiny_data(train=64), on_collapse="ignore")
    assert [step.achieved["importance"] for step in made.steps] == ["surgeon", "similarity"]


@pytest.mark.parametrize(
    "step",
    [Step.of("sparsegpt"), Step.of("depth-pruning", count=1), Step.of("reconstruct", classifier="fit")],
    ids=lambda step: step.use,
)
def test_too_few_images_for_a_later_step_are_found_before_the_first(model: nn.Module, step: Step) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = Recipe(steps=(Step.of("structured-pruning", mlp=0.5, importance="magnitude", repair="none"), step))
    with pytest.raises(RecipeError, match=rf"step 2 \({step.use}\).*needs"):
        pah_opt.apply(model, recipe, tiny_data(train=16), calibration_images=7, inplace=True)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
