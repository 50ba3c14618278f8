from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.optim import optimizer as torch_optimizer

from pah_opt.errors import DataError
from pah_opt.strategies.unstructured.gradual_config import GradualConfig
from pah_opt.strategies.unstructured.gradual_pruning import GradualPruning
from pah_opt.strategies.unstructured.optimizers import MagnitudePruning
from pah_opt.testing import tiny_vit

pytest.importorskip("accelerate", reason="accelerate is not installed: nothing can be trained")

Context = Callable[..., Any]
Images = Callable[..., Any]
GRADUAL = GradualPruning()
SHORT = {"steps": 1, "batch_size": 4, "distill": 0.0, "rounds": 2}


def applied(context: Context, model: nn.Module, split: Any, reference: Any = None, **parameters: Any) -> dict[str, Any]:
    """Prune ``model`` in place and return the report."""
    config = GradualConfig(**parameters)
    found = context(model, split, training=split, reference=reference)
    assert GRADUAL.check(model, config, found) == []
    GRADUAL.apply(model, config, found)
    return found.achieved


def test_sparsity_rises_along_a_cubic_to_the_end() -> None:
    schedule = GradualConfig(sparsity=0.9, initial_sparsity=0.1, rounds=8).schedule
    steps = [after - before for before, after in zip([0.1, *schedule], schedule, strict=False)]
    assert schedule[-1] == 0.9
    assert schedule[3] == pytest.approx(0.9 - 0.8 * 0.5**3)
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] > 0


@pytest.mark.parametrize("method", ["magnitude", "lamp", "taylor", "obd", "wanda", "sparsegpt"])
def test_every_method_ends_with_the_zeros_asked_for(context: Context, images: Images, method: str) -> None:
    model = tiny_vit()
    achieved = applied(context, model, images(model), sparsity=0.7, method=method, **SHORT)
    assert achieved["sparsity"] == pytest.approx(0.7, abs=1e-3)
    assert [round(row["sparsity"], 4) for row in achieved["rounds"]] == [0.6125, 0.7]
    assert all(row["updates"] == 1 and row["train_loss"] > 0 for row in achieved["rounds"])


def test_training_between_prunings_wins_back_what_one_shot_loses(context: Context, judge: Any) -> None:
    import copy

    training = judge.data.train.subset(range(512))
    gradual, cut = copy.deepcopy(judge.dense), copy.deepcopy(judge.dense)
    parameters = {"sparsity": 0.93, "rounds": 4, "epochs": 1, "lr": 2e-3, "batch_size": 64}
    applied(context, gradual, training, judge.dense, **parameters)
    magnitude = MagnitudePruning()
    magnitude.apply(cut, magnitude.config_type(sparsity=0.93), context(cut))
    assert judge.accuracy(gradual) > judge.accuracy(cut) + 5


def test_weights_really_train_and_nothing_stays_behind(context: Context, images: Images) -> None:
    model = tiny_vit()
    hooks = dict(torch_optimizer._global_optimizer_post_hooks)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    applied(context, model, images(model), sparsity=0.5, **SHORT)
    assert not torch.equal(model.classifier.weight, before["classifier.weight"])
    assert dict(torch_optimizer._global_optimizer_post_hooks) == hooks
    assert not model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_the_same_seed_gives_the_same_model(context: Context, images: Images) -> None:
    models = [tiny_vit(), tiny_vit()]
    for model in models:
        applied(context, model, images(model), sparsity=0.5, **SHORT)
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))


def test_missing_training_images_are_refused(context: Context, images: Images) -> None:
    model = tiny_vit()
    with pytest.raises(DataError, match="no training images"):
        GRADUAL.apply(model, GradualConfig(), context(model, images(model)))


def test_training_images_that_do_not_fit_are_refused_before_anything_is_pruned(
    context: Context, images: Images
) -> None:
    model = tiny_vit()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    split = images(tiny_vit(image=48))
    with pytest.raises(DataError, match=r"48, 48\), the model takes"):
        applied(context, model, split, sparsity=0.5, **SHORT)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"initial_sparsity": 0.9, "sparsity": 0.9}, "initial_sparsity 0.9 must be below"),
        ({"early_stop": 2}, "early_stop is for a single training"),
        ({"sparsity": 1.0}, "sparsity"),
        ({"rounds": 0}, "rounds"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GradualConfig(**parameters)


def test_patterns_and_half_precision_are_found_before_any_round(context: Context) -> None:
    model = tiny_vit().to("meta", torch.bfloat16)
    config = GradualConfig(include=("*.fc9",))
    lost, half = GRADUAL.check(model, config, context(model, planning=True))
    assert "fc9" in lost
    assert "half precision" in half
    assert GRADUAL.apply(model, config, context(model, planning=True)) is model


def test_needs_follow_the_method() -> None:
    needs = {
        method: GRADUAL.needs(GradualConfig(method=method)) for method in ("magnitude", "wanda", "taylor", "sparsegpt")
    }
    assert all(need.training for need in needs.values())
    assert [method for method, need in needs.items() if need.calibration] == ["wanda", "taylor", "sparsegpt"]
    assert [method for method, need in needs.items() if need.labels] == ["taylor", "sparsegpt"]
