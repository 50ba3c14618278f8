from __future__ import annotations

import copy
import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

import pah_opt
from pah_opt import Recipe, Step
from pah_opt.data import TensorSplit
from pah_opt.environment import Environment
from pah_opt.errors import (
    AccuracyCollapseError,
    DataError,
    IncompatibleStepsError,
    NoEffectError,
    RecipeError,
    StepFailedError,
    UnsupportedModelError,
)
from pah_opt.optimizer import Effect
from pah_opt.pipeline.copies import private_copy
from pah_opt.pipeline.seeding import seeded
from pah_opt.pipeline.subject import Subject
from pah_opt.registry import default_registry
from pah_opt.splits import Data
from pah_opt.testing import tiny_timm_vit


def recipe(*steps: str | Step, seed: int = 0) -> Recipe:
    return Recipe(seed=seed, steps=tuple(Step.of(s) if isinstance(s, str) else s for s in steps))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def labelled(model: nn.Module, seed: int = 0, count: int = 160) -> TensorSplit:
    """Images labelled by the model itself, so that it is right about all of them."""
    generator = torch.Generator().manual_seed(seed)
    size = model.config.image_size
    pixels = torch.randn((count * 4, 3, size, size), generator=generator)
    with torch.no_grad():
        model.eval()
        labels = model(pixels).logits.argmax(-1)
    names = tuple(f"class {i}" for i in range(model.config.num_labels))
    return TensorSplit(pixels, labels, names, name=f"own-{seed}")


@pytest.fixture
def separating(model: nn.Module) -> nn.Module:
    """A model whose head spreads its answers over the classes."""
    torch.manual_seed(0)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.randn_like(model.classifier.weight) * 10)
        pixels = torch.randn(256, 3, model.config.image_size, model.config.image_size)
        model.classifier.bias.sub_(model.eval()(pixels).logits.mean(0))
    return model


def test_callers_model_is_left_alone(model: nn.Module) -> None:
    before, mode = weights(model), model.training
    artifact = pah_opt.apply(model, recipe(Step.of("scale", factor=2.0)))
    assert same(before, weights(model))
    assert model.training == mode
    assert not same(before, weights(artifact.model))


def test_inplace_changes_the_callers_model(model: nn.Module) -> None:
    before = weights(model)
    artifact = pah_opt.apply(model, recipe("scale"), inplace=True)
    assert artifact.model is model
    assert not same(before, weights(model))


def test_artifact_records_what_was_asked_and_achieved(model: nn.Module) -> None:
    (record,) = pah_opt.apply(model, recipe(Step.of("scale", factor=3.0))).steps
    assert record.use == "scale"
    assert record.config == {"factor": 3.0}
    assert record.achieved == {"factor": 3.0}
    assert record.before["params"] == record.after["params"] > 0


def test_same_seed_gives_the_same_weights_and_another_seed_does_not(model: nn.Module) -> None:
    first, again, other = (pah_opt.apply(model, recipe("scale", seed=seed)).model for seed in (1, 1, 2))
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


def test_callers_random_state_is_restored(model: nn.Module) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = draw()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    pah_opt.apply(model, recipe("scale"))
    assert draw() == expected


def test_step_without_its_effect_is_refused(model: nn.Module) -> None:
    with pytest.raises(NoEffectError, match=r"step 2 \(nothing\): removed no parameters") as caught:
        pah_opt.apply(model, recipe("scale", "nothing"))
    assert (caught.value.index, caught.value.name) == (1, "nothing")


def test_exception_of_a_step_is_chained_and_the_model_untouched(model: nn.Module) -> None:
    before = weights(model)
    with pytest.raises(StepFailedError, match="ZeroDivisionError: kaput") as caught:
        pah_opt.apply(model, recipe("raises"))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert same(before, weights(model))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("unsaved", r"step 1 \(unsaved\).*KeyError: 'state'"),
        ("unusable", r"step 1 \(unusable\).*the model that it left cannot be run: .*RuntimeError"),
    ],
)
def test_whatever_else_a_step_raises_is_its_failure(model: nn.Module, step: str, message: str) -> None:
    with pytest.raises(StepFailedError, match=message):
        pah_opt.apply(model, recipe(step))


def test_a_step_that_cannot_say_what_it_promises_is_refused_before_anything_runs(model: nn.Module) -> None:
    with pytest.raises(RecipeError, match=r"\(undeclared\).*its expects\(\) failed with KeyError: 'promise'"):
        pah_opt.apply(model, recipe("undeclared"))


def test_ctrl_c_leaves_the_callers_model_whole(model: nn.Module) -> None:
    before = weights(model)
    with pytest.raises(KeyboardInterrupt):
        pah_opt.apply(model, recipe("scale", "interrupted"))
    assert same(before, weights(model))


def test_logits_that_are_not_finite_are_refused(model: nn.Module) -> None:
    with pytest.raises(StepFailedError, match="no longer finite"):
        pah_opt.apply(model, recipe("poison"))


def test_false_attributes_are_refused(model: nn.Module) -> None:
    with pytest.raises(StepFailedError, match="num_attention_heads"):
        pah_opt.apply(model, recipe("lies"))


def test_unannounced_change_of_shapes_is_refused(model: nn.Module) -> None:
    with pytest.raises(StepFailedError, match="promised to keep shapes"):
        pah_opt.apply(model, recipe("shrinks"))


def test_wrong_order_is_refused_before_anything_runs(model: nn.Module) -> None:
    before = weights(model)
    with pytest.raises(IncompatibleStepsError, match="weights:float"):
        pah_opt.apply(model, recipe("freeze", "scale"))
    assert same(before, weights(model))


def test_tags_follow_the_steps(model: nn.Module) -> None:
    artifact = pah_opt.apply(model, recipe("freeze"))
    assert "frozen" in artifact.tags
    assert "weights:float" not in artifact.tags


def test_everything_wrong_is_said_at_once(model: nn.Module) -> None:
    with pytest.raises(RecipeError) as caught:
        pah_opt.apply(model, recipe("scael", Step.of("scale", factr=1.0), "watches"))
    message = str(caught.value)
    assert len(caught.value.problems) == 3
    for part in ("'scale'", "'factor'", "calibration"):
        assert part in message


def test_recipe_may_be_a_file(model: nn.Module, tmp_path) -> None:
    path = tmp_path / "scale.yaml"
    path.write_text("name: twice\nsteps:\n  - use: scale\n    with: {factor: 2.0}\n")
    assert pah_opt.apply(model, path).recipe.name == "twice"
    assert pah_opt.apply(model, path.read_text()).recipe.name == "twice"


@pytest.mark.parametrize(
    "other",
    [nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 2)), nn.LSTM(4, 4), nn.Linear(3, 2)],
    ids=["cnn", "lstm", "linear"],
)
def test_models_that_are_no_vit_are_refused(other: nn.Module) -> None:
    with pytest.raises(UnsupportedModelError, match=type(other).__name__):
        pah_opt.apply(other, recipe("scale"))


def test_nan_weights_are_refused_by_name(model: nn.Module) -> None:
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    with pytest.raises(UnsupportedModelError, match=r"classifier\.weight"):
        pah_opt.apply(model, recipe("scale"))


def test_collapse_to_chance_is_an_error(separating: nn.Module) -> None:
    data = Data(test=labelled(separating), train=labelled(separating, seed=1))
    with pytest.raises(AccuracyCollapseError, match="at chance"):
        pah_opt.apply(separating, recipe("ruin"), data)


def test_collapse_can_be_a_warning(separating: nn.Module) -> None:
    data = Data(test=labelled(separating), train=labelled(separating, seed=1))
    with pytest.warns(RuntimeWarning, match="at chance"):
        artifact = pah_opt.apply(separating, recipe("ruin"), data, on_collapse="warn")
    assert artifact.steps[0].after["held_out_top1"] < 0.5


def shuffled(model: nn.Module, seed: int, count: int = 160) -> TensorSplit:
    """Images whose labels have nothing to do with them."""
    split = labelled(model, seed, count)
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return TensorSplit(split.pixel_values, split.labels[order], split.class_names, name=f"noise-{seed}")


def test_a_model_at_chance_has_nothing_to_lose(separating: nn.Module) -> None:
    data = Data(test=shuffled(separating, 0), train=shuffled(separating, 1))
    artifact = pah_opt.apply(separating, recipe("ruin"), data, weights_origin="random")
    assert "held_out_top1" not in artifact.steps[0].after


def test_where_nobody_said_what_the_weights_are_a_model_at_chance_is_warned_of(separating: nn.Module) -> None:
    data = Data(test=shuffled(separating, 0), train=shuffled(separating, 1))
    with pytest.warns(RuntimeWarning, match="What a step damages cannot be seen in it"):
        pah_opt.apply(separating, recipe("ruin"), data)


def test_zeros_are_counted_where_none_are_recorded(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.pipeline.conftest import Scale

    monkeypatch.setattr(Scale, "expects", lambda *_: Effect(zeros_at_least=0.4))
    with pytest.raises(NoEffectError, match=r"promised 40.00% zeros; its weights hold 0.00%"):
        pah_opt.apply(model, recipe("scale"))
    monkeypatch.setattr(Scale, "apply", lambda _self, given, *_: halved(given))
    assert pah_opt.apply(model, recipe("scale")).steps[0].after["sparsity_pct"] > 0


def halved(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.weight[::2] = 0.0
    return model


def test_trained_weights_at_chance_before_any_step_are_refused(separating: nn.Module) -> None:
    data = Data(test=shuffled(separating, 0), train=shuffled(separating, 1))
    with pytest.raises(DataError, match=r"at chance on these images before any step: top-1 .*adapt it"):
        pah_opt.apply(separating, recipe("scale"), data, weights_origin="pretrained")
    with pytest.warns(RuntimeWarning, match="before any step"):
        pah_opt.apply(separating, recipe("scale"), data, weights_origin="fine-tuned", on_collapse="warn")
    assert pah_opt.apply(separating, recipe("scale"), data, weights_origin="pretrained", on_collapse="ignore").steps


def test_few_images_do_not_tell_a_weak_model_from_chance(separating: nn.Module) -> None:
    data = Data(test=shuffled(separating, 0), train=shuffled(separating, 1, count=20))
    assert pah_opt.apply(separating, recipe("scale"), data, weights_origin="pretrained").steps


def test_labels_out_of_step_with_the_head_are_refused(separating: nn.Module) -> None:
    split = labelled(separating)
    separating.config.id2label = dict(enumerate(reversed(split.class_names)))
    with pytest.raises(DataError, match="labels are out of step: class 'class 0' is 0"):
        pah_opt.apply(separating, recipe("scale"), Data(test=split, train=labelled(separating, seed=1)))


def test_calibration_takes_the_asked_number_of_training_images(separating: nn.Module) -> None:
    data = Data(test=labelled(separating), train=labelled(separating, seed=1))
    artifact = pah_opt.apply(separating, recipe("watches"), data, calibration_images=32)
    assert artifact.steps[0].achieved["images"] == 32


@pytest.mark.parametrize(
    "step",
    [Step.of("torchao", scheme="fp8-dynamic"), Step.of("semi-structured", kernels="require", method="magnitude")],
    ids=lambda step: step.use,
)
def test_steps_for_a_gpu_are_refused_while_the_model_is_on_the_cpu(model: nn.Module, step: Step) -> None:
    before = weights(model)
    environment = Environment(cuda=True, capability=(9, 0))
    with pytest.raises(RecipeError, match=rf'step 2 \({step.use}\): needs the model on a CUDA.*model.to\("cuda"\)'):
        pah_opt.apply(model, recipe("scale", step), environment=environment)
    assert same(weights(model), before)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_training_images_to_calibrate_and_hold_out_are_refused_in_those_words(
    separating: nn.Module, count: int
) -> None:
    data = Data(test=labelled(separating), train=labelled(separating, seed=1).subset(range(count)))
    with pytest.raises(DataError, match=rf"has {count} images.*calibrates and trains on some.*give at least 16"):
        pah_opt.apply(separating, recipe("watches"), data)


def test_test_images_alone_cannot_calibrate(separating: nn.Module) -> None:
    with pytest.raises(RecipeError, match="calibration"):
        pah_opt.apply(separating, recipe("watches"), Data(test=labelled(separating)))


def test_classes_that_do_not_fit_the_head_are_refused(model: nn.Module) -> None:
    size = model.config.image_size
    split = TensorSplit(torch.randn(8, 3, size, size), torch.arange(8) % 3, ("a", "b", "c"), name="three")
    with pytest.raises(DataError, match="3 classes"):
        pah_opt.apply(model, recipe("scale"), Data(test=split))


def test_a_model_without_values_is_refused_and_told_of_plan(model: nn.Module) -> None:
    with pytest.raises(UnsupportedModelError, match=r"meta device and has no values; load its weights, or use plan"):
        pah_opt.apply(model.to("meta"), recipe("scale"))


def test_a_callers_inference_mode_changes_nothing(model: nn.Module) -> None:
    wanted = weights(pah_opt.apply(model, recipe("scale")).model)
    with torch.inference_mode():
        found = pah_opt.apply(model, recipe("scale")).model
    assert same(weights(found), wanted)
    assert not any(parameter.is_inference() for parameter in found.parameters())


def test_a_model_made_in_inference_mode_is_refused_with_the_remedy(model: nn.Module) -> None:
    with torch.inference_mode():
        made = copy.deepcopy(model)
        with pytest.raises(UnsupportedModelError, match=r"made under torch\.inference_mode.*deepcopy made outside"):
            pah_opt.apply(made, recipe("scale"))
    pah_opt.apply(copy.deepcopy(made), recipe("scale"))


def test_a_half_precision_model_that_casts_no_pixels_is_refused_with_the_remedy() -> None:
    with pytest.raises(UnsupportedModelError, match=r"in bfloat16 and does not run.*model\.float\(\).*cast"):
        pah_opt.apply(tiny_timm_vit().bfloat16(), recipe("magnitude-pruning"))


def test_a_half_precision_model_that_casts_its_pixels_is_worked_on(model: nn.Module) -> None:
    assert pah_opt.apply(model.bfloat16(), recipe("magnitude-pruning")).steps


def test_steps_on_the_cpu_seed_no_gpu(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[object] = []
    monkeypatch.setattr("torch.cuda.manual_seed_all", touched.append)
    monkeypatch.setattr("torch.cuda.device_count", lambda: touched.append("counted") or 0)
    with seeded(7, torch.device("cpu")):
        first = torch.rand(())
    with seeded(7, torch.device("cpu")):
        assert torch.rand(()) == first
    assert not touched


def test_steps_on_a_gpu_seed_that_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    forked: list[list[int]] = []
    generators = [torch.Generator().manual_seed(index) for index in range(2)]
    monkeypatch.setattr("torch.cuda.default_generators", generators)
    monkeypatch.setattr("torch.random.fork_rng", lambda devices: forked.append(devices) or nullcontext())
    state = torch.get_rng_state()
    with seeded(7, torch.device("cuda", 1)):
        assert [generator.initial_seed() for generator in generators] == [0, 7]
    assert forked == [[1]]
    torch.set_rng_state(state)


@pytest.mark.parametrize("default", [torch.float64, torch.float16])
def test_torchs_default_type_does_not_reach_the_example(model: nn.Module, default: torch.dtype) -> None:
    subject = Subject.of(model, default_registry(), private_copy)
    wanted = subject.example(3)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        with torch.device("meta"):
            found = subject.example(3)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(found, wanted)
