"""Closed-form reconstruction: hidden states come back to the dense model's, in every family."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from torch import nn

import pah_opt
from pah_opt import Context, Data, Recipe, Step
from pah_opt.adapt import evaluate, pretrained_digits_vit
from pah_opt.artifact import Artifact
from pah_opt.data import TensorSplit
from pah_opt.environment import Environment
from pah_opt.errors import DataError, RecipeError, UnsupportedModelError
from pah_opt.models import find_adapter, logits_of
from pah_opt.models.calibration import BlockRunner
from pah_opt.registry import default_registry
from pah_opt.strategies.training.reconstruct import Reconstruct, ReconstructConfig
from pah_opt.strategies.training.reconstruction import matched_blocks
from pah_opt.testing import tiny_data, tiny_images
from pah_opt.testing.models import TINY_MODELS, tiny_dinov2, tiny_vit

HALF = Step.of("structured-pruning", heads=0.5, mlp=0.5)
# Few patches: a class token that counted as much as 32 of them would be all that matters.
RECONSTRUCT = Step.of("reconstruct", images=256, ridge=1e-3, prefix_weight=4)
WAYS = ("keep", "fit")
DATA = tiny_data(image=32, train=256)
MANY = tiny_data(image=32, train=700)


def made(model: nn.Module, *steps: Step, data: Data = DATA) -> Artifact:
    recipe = Recipe(name="trial", steps=steps)
    return pah_opt.apply(model, recipe, data, on_collapse="ignore", calibration_images=16)


def tell_apart(model: nn.Module) -> nn.Module:
    """Give weights the spread of a trained model: those of a new one hardly move the tokens."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                spread = 1 / math.sqrt(layer.in_features)
                layer.weight.copy_(spread * torch.randn(layer.weight.shape, generator=generator))
    return model


def without_biases(model: nn.Module) -> nn.Module:
    """Leave the means to the norms."""
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear) and layer is not model.classifier:
                layer.bias = None
            if isinstance(layer, nn.LayerNorm):
                layer.bias.fill_(0.7)
    return model


def error(model: nn.Module, dense: nn.Module) -> float:
    """Return the squared error of the logits on images that nothing was fitted to, over the dense ones' variance."""
    images = tiny_images(40, image=32, seed=99)
    with torch.inference_mode():
        wanted, given = logits_of(dense(images)), logits_of(model(images))
    return float((given - wanted).square().mean() / wanted.var())


@pytest.mark.parametrize("kind", list(TINY_MODELS))
def test_a_pruned_model_of_every_family_comes_nearer_to_the_dense_one(kind: str) -> None:
    dense = tell_apart(TINY_MODELS[kind](image=32))
    cut, refitted = made(dense, HALF), made(dense, HALF, RECONSTRUCT)
    assert error(refitted.model, dense) < 0.8 * error(cut.model, dense)
    assert refitted.steps[1].achieved["matched_blocks"] == [0, 1]


@pytest.mark.parametrize(
    "step",
    [Step.of("magnitude-pruning", sparsity=0.8), Step.of("sparsegpt", pattern="2:4"), Step.of("wanda", sparsity=0.7)],
    ids=lambda step: step.use,
)
def test_zeros_stay_and_the_other_weights_make_up_for_them(step: Step) -> None:
    dense = tell_apart(tiny_vit(image=32))
    sparse, refitted = made(dense, step), made(dense, step, RECONSTRUCT)
    assert error(refitted.model, dense) < error(sparse.model, dense)
    for path, layer in sparse.model.named_modules():
        if isinstance(layer, nn.Linear) and "classifier" not in path:
            zeros = layer.weight == 0
            assert bool((refitted.model.get_submodule(path).weight[zeros] == 0).all()), path


def test_a_model_that_nothing_was_done_to_stays_as_it_is() -> None:
    dense = tell_apart(tiny_vit(image=32))
    refitted = made(dense, RECONSTRUCT)
    assert refitted.steps[0].achieved["residual_error"] < 1e-9
    for (name, before), after in zip(dense.named_parameters(), refitted.model.parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-5), name


def test_half_precision_products_give_nearly_the_same() -> None:
    dense = tell_apart(tiny_vit(image=32))
    full, half = (
        made(dense, HALF, Step.of("reconstruct", images=64, mixed_precision=precision)) for precision in ("no", "bf16")
    )
    errors = [error(artifact.model, dense) for artifact in (full, half)]
    assert errors[1] == pytest.approx(errors[0], rel=0.1)
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("removed", [[1], [0, 2], [2, 3]])
def test_blocks_that_are_left_follow_those_they_come_from(removed: list[int]) -> None:
    dense = tell_apart(tiny_dinov2(blocks=6, image=32))
    refitted = made(dense, Step.of("depth-pruning", blocks=removed, repair="least-squares"), RECONSTRUCT)
    kept = [index for index in range(6) if index not in removed]
    # What comes after a removed block is taken over by the block before it, which then gives its output.
    wanted = [after - 1 for after in kept[1:]] + [5]
    assert refitted.steps[1].achieved["matched_blocks"] == wanted
    assert error(refitted.model, dense) < error(made(dense, Step.of("depth-pruning", blocks=removed)).model, dense)


def test_blocks_are_matched_in_order_and_the_last_with_the_last() -> None:
    dense, other = tiny_vit(blocks=5, image=32), tiny_vit(blocks=3, image=32, seed=7)
    adapter = find_adapter(dense, default_registry().adapters)
    walks = [BlockRunner(each, adapter.layout(each), DATA.test) for each in (other, dense)]
    goals = matched_blocks(*walks)
    assert goals == sorted(set(goals))
    assert (len(goals), goals[-1]) == (3, 4)


def test_the_same_images_give_the_same_weights() -> None:
    dense = tell_apart(tiny_vit(image=32))
    one, two = (made(dense, HALF, RECONSTRUCT).model.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("first", [Step.of("width-pruning", ratio=0.25), Step.of("input-size", size=16)])
def test_hidden_states_that_cannot_be_compared_are_refused_before_any_change(first: Step) -> None:
    with pytest.raises(RecipeError, match="put reconstruct before the step that changes them"):
        made(tiny_vit(image=32), first, RECONSTRUCT)


def test_other_numbers_of_tokens_are_told() -> None:
    dense = tiny_vit(image=32)
    model = copy.deepcopy(dense)
    block = model.get_submodule("vit.layers.0")
    forward = block.forward
    block.forward = lambda *args, **kwargs: forward(*args, **kwargs)[:, :-2]
    context = Context(
        find_adapter(dense, default_registry().adapters), Environment(), training=DATA.train, reference=dense
    )
    with pytest.raises(UnsupportedModelError, match="how many tokens"):
        Reconstruct().apply(model, ReconstructConfig(images=16), context)


def test_too_few_images_and_a_missing_dense_model_are_named() -> None:
    model = tiny_vit(image=32)
    context = Context(find_adapter(model, default_registry().adapters), Environment(), training=DATA.train)
    with pytest.raises(UnsupportedModelError, match="there is none"):
        Reconstruct().apply(model, ReconstructConfig(), context)
    few = replace(context, reference=model, training=TensorSplit(tiny_images(3, image=32), torch.zeros(3).long(), "ab"))
    with pytest.raises(DataError, match="at least 8"):
        Reconstruct().apply(model, ReconstructConfig(), few)


def test_classifiers_that_cannot_be_fitted_are_refused_before_any_block_changes() -> None:
    dense = tiny_vit(image=32)
    model = tell_apart(tiny_vit(image=32))
    before = copy.deepcopy(model.state_dict())
    context = Context(
        find_adapter(model, default_registry().adapters), Environment(), training=DATA.train, reference=dense
    )
    with pytest.raises(DataError, match="needs 50 training images of each class"):
        Reconstruct().apply(model, ReconstructConfig(images=16, classifier="fit"), context)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_weights_that_are_not_finite_are_named() -> None:
    dense = tiny_vit(image=32)
    model = copy.deepcopy(dense)
    with torch.no_grad():
        model.get_submodule("vit.layers.1.mlp.fc1").weight[0, 0] = float("nan")
    context = Context(
        find_adapter(model, default_registry().adapters), Environment(), training=DATA.train, reference=dense
    )
    with pytest.raises(DataError, match=r"vit.layers.1.mlp.fc2 are not finite"):
        Reconstruct().apply(model, ReconstructConfig(images=16), context)


def labelled(model: nn.Module, count: int, seed: int) -> TensorSplit:
    """Images with the labels that a model gives them."""
    images = tiny_images(count, image=32, seed=seed)
    with torch.inference_mode():
        labels = logits_of(model(images)).argmax(dim=1)
    return TensorSplit(images, labels, [f"class {index}" for index in range(10)])


def test_classifiers_are_fitted_anew_on_labels_where_that_is_asked_for() -> None:
    dense = tell_apart(tiny_vit(image=32))
    data = Data(test=labelled(dense, 200, 2), train=labelled(dense, 800, 1))
    kept, fitted = (made(dense, HALF, Step.of("reconstruct", images=256, classifier=way), data=data) for way in WAYS)
    assert torch.equal(kept.model.get_submodule("classifier").weight, dense.get_submodule("classifier").weight)
    assert not torch.equal(fitted.model.get_submodule("classifier").weight, dense.get_submodule("classifier").weight)
    right = [
        float((logits_of(each.model(data.test.pixel_values)).argmax(dim=1) == data.test.labels).float().mean())
        for each in (kept, fitted)
    ]
    assert right[1] >= right[0] - 0.02
    assert fitted.steps[1].achieved["classifier_images"] >= 500
    assert 0.3 < fitted.steps[1].achieved["classifier_validation_accuracy"] <= 1.0


def test_too_few_images_of_each_class_are_not_fitted_on() -> None:
    with pytest.raises(RecipeError, match=r"needs 50 training images of each class, and there are \d+ of 10 classes"):
        made(tiny_vit(image=32), Step.of("reconstruct", images=16, classifier="fit"))


def test_a_classifier_with_zeros_on_purpose_is_not_fitted_anew() -> None:
    step = Step.of("magnitude-pruning", sparsity=0.5, skip=[])
    with pytest.raises(UnsupportedModelError, match="classifier holds zeros on purpose"):
        made(tiny_vit(image=32), step, Step.of("reconstruct", images=16, classifier="fit"), data=MANY)


def test_a_backbone_has_no_classifier_to_fit() -> None:
    dense = tiny_vit(image=32)
    adapter = find_adapter(dense, default_registry().adapters)
    empty = SimpleNamespace(layout=lambda _: replace(adapter.layout(dense), classifiers=()))
    context = Context(empty, Environment(), reference=dense, planned_training=500)  # type: ignore[arg-type]
    found = Reconstruct().check(dense, ReconstructConfig(classifier="fit"), context)
    assert found == ["there is no classifier to fit in this model; leave classifier: fit out"]


def test_a_classifier_without_bias_is_not_fitted_anew() -> None:
    dense = tiny_vit(image=32)
    dense.classifier = nn.Linear(32, 10, bias=False)
    with pytest.raises(RecipeError, match="classifier has no bias, and one is fitted with it"):
        made(dense, Step.of("reconstruct", images=16, classifier="fit"), data=MANY)


@pytest.mark.parametrize("factor", [0.1, 0.01])
def test_small_layer_scales_in_half_precision_are_found(factor: float) -> None:
    dense = tell_apart(tiny_dinov2(image=32))
    with torch.no_grad():
        for name, parameter in dense.named_parameters():
            if "lambda1" in name:
                parameter.fill_(factor)
        dense.dinov2.embeddings.position_embeddings.normal_(std=4.0)
    half = copy.deepcopy(dense).bfloat16()
    cut, refitted = made(half, HALF), made(half, HALF, RECONSTRUCT)
    assert refitted.steps[1].achieved["residual_error"] < 1e-3
    assert error(refitted.model, dense) < 1.2 * error(cut.model, dense) + 1e-4


def test_layers_without_bias_are_refitted_with_the_mean_in_mind() -> None:
    dense = without_biases(tell_apart(tiny_vit(image=32)))
    cut, refitted = made(dense, HALF), made(dense, HALF, RECONSTRUCT)
    assert error(refitted.model, dense) < 0.8 * error(cut.model, dense)


def test_images_for_classifiers_that_are_kept_are_refused() -> None:
    with pytest.raises(ValidationError, match="set classifier: fit"):
        ReconstructConfig(images_per_class=100)


@pytest.mark.slow
def test_real_digits_are_read_better_after_it() -> None:
    digits = pretrained_digits_vit()
    adapter = find_adapter(digits.model, default_registry().adapters)
    cut, refitted = (
        evaluate(made(digits.model, *steps, data=digits.data).model, digits.data.test, adapter).accuracy
        for steps in ((HALF,), (HALF, Step.of("reconstruct", prefix_weight=4)))
    )
    assert refitted > cut + 0.005  # 98.0 % against 96.4 % when this was written; the dense model has 99.1 %
