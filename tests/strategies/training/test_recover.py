from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

import pah_opt
from pah_opt import Context, Data, Recipe, Step
from pah_opt.data import TensorSplit
from pah_opt.environment import Environment
from pah_opt.errors import DataError, RecipeError
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.strategies.training.recover import Recover, RecoverConfig
from pah_opt.testing.models import TINY_MODELS, tiny_vit


def coloured(count: int, seed: int) -> TensorSplit:
    """Noisy images whose brightest channel is their label."""
    labels = torch.arange(count) % 3
    pixels = 0.3 * torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    pixels[torch.arange(count), labels] += 1.0
    return TensorSplit(pixels, labels, ("a", "b", "c"), f"coloured-{seed}")


def tiny(seed: int = 0, kind: str = "hf-vit") -> nn.Module:
    return TINY_MODELS[kind](classes=3, image=16, seed=seed)


def context_for(model: nn.Module, **changes: Any) -> Context:
    adapter = find_adapter(model, default_registry().adapters)
    return replace(Context(adapter, Environment(), training=coloured(24, 0), reference=tiny()), **changes)


def pruned(model: nn.Module) -> nn.Linear:
    layer = model.get_submodule("vit.layers.0.mlp.fc1")
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight[:, ::2] = 0
    return layer


def test_recovering_wins_back_what_pruning_lost() -> None:
    from pah_opt.adapt import TrainSettings, evaluate, fit

    model = tiny()
    adapter = find_adapter(model, default_registry().adapters)
    data = Data(test=coloured(60, 2), train=coloured(90, 1))
    assert isinstance(data.train, TensorSplit)
    fit(model, data.train, TrainSettings(epochs=12, lr=5e-3, batch_size=16), adapter=adapter)
    prune = Step.of("magnitude-pruning", sparsity=0.9)
    cut = pah_opt.apply(model, Recipe(steps=(prune,)), data, on_collapse="ignore")
    steps = (prune, Step.of("recover", epochs=8, lr=5e-3, batch_size=16))
    recovered = pah_opt.apply(model, Recipe(steps=steps), data, on_collapse="ignore")
    before, after = (evaluate(artifact.model, data.test, adapter) for artifact in (cut, recovered))
    assert after.loss < 0.5 * before.loss
    assert after.accuracy >= before.accuracy
    for one, other in zip(cut.model.parameters(), recovered.model.parameters(), strict=True):
        if one.ndim == 2:
            assert (other[one == 0] == 0).all()
    achieved = recovered.steps[1].achieved
    assert achieved["layers_with_zeros_kept"] > 0
    assert json.loads(json.dumps(achieved)) == achieved


@pytest.mark.parametrize("kind", list(TINY_MODELS))
def test_every_family_can_recover(kind: str) -> None:
    model, reference = tiny(0, kind), tiny(1, kind)
    context = context_for(model, reference=reference)
    model, reference = context.adapter.prepare(model), context.adapter.prepare(reference)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = Recover().apply(model, RecoverConfig(steps=2, distill_features=0.5), replace(context, reference=reference))
    assert found is model
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: value.shape for name, value in model.state_dict().items()} == {n: v.shape for n, v in before.items()}
    assert context.adapter.disagreements(model) == []


@pytest.mark.parametrize("kind", list(TINY_MODELS))
def test_training_at_a_smaller_input_leaves_size_and_positions_as_they_were(kind: str) -> None:
    model, reference = tiny(0, kind), tiny(1, kind)
    context = context_for(model, reference=reference)
    model, reference = context.adapter.prepare(model), context.adapter.prepare(reference)
    size = context.adapter.layout(model).image_size
    before = {name: value.clone() for name, value in model.state_dict().items()}
    teacher = {name: value.clone() for name, value in reference.state_dict().items()}
    watched: list[torch.Size] = []
    block = model.get_submodule(context.adapter.layout(model).blocks[0].path)
    handle = block.register_forward_hook(lambda _module, args, _output: watched.append(args[0].shape))
    config = RecoverConfig(steps=2, batch_size=4, input_size=8, distill_features=0.5)
    Recover().apply(model, config, replace(context, reference=reference))
    handle.remove()
    patches = size[0] // 8 * (size[1] // 8)
    assert len(watched) == 2
    assert all(patches > 1 and shape[1] < patches + 1 for shape in watched)  # one patch and the prefix tokens
    after = model.state_dict()
    changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
    assert changed
    assert not any("position" in name or "pos_embed" in name or "pos_embedding" in name for name in changed)
    assert {name: value.shape for name, value in after.items()} == {name: v.shape for name, v in before.items()}
    assert context.adapter.layout(model).image_size == size
    assert context.adapter.disagreements(model) == []
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, teacher[name]) for name, value in reference.state_dict().items())


def test_training_at_a_smaller_input_teaches_the_model_at_its_own() -> None:
    from pah_opt.adapt import evaluate

    model = tiny()
    adapter = find_adapter(model, default_registry().adapters)
    before = evaluate(model, coloured(60, 2), adapter, batch_size=20).accuracy
    config = RecoverConfig(epochs=12, lr=5e-3, batch_size=16, input_size=8, distill=0.0)
    Recover().apply(model, config, context_for(model, training=coloured(90, 1), reference=None))
    assert before < 0.6 < 0.9 < evaluate(model, coloured(60, 2), adapter, batch_size=20).accuracy


def test_failed_training_at_a_smaller_input_gives_the_size_back() -> None:
    model = tiny()
    context = context_for(model, reference=None)
    positions = context.adapter.layout(model).image_size, model.state_dict()["vit.embeddings.position_embeddings"]
    with pytest.raises(DataError, match="distillation needs a teacher"):
        Recover().apply(model, RecoverConfig(steps=1, input_size=8), context)
    assert context.adapter.layout(model).image_size == positions[0]
    assert model.state_dict()["vit.embeddings.position_embeddings"].data_ptr() == positions[1].data_ptr()


def test_features_can_be_matched_at_a_common_input_size() -> None:
    model = tiny_vit(classes=3, image=32)
    config = RecoverConfig(distill_features=1.0, steps=1, input_size=16)
    context = context_for(model)
    assert Recover().check(model, config, context) == []
    Recover().apply(model, config, context)
    assert context.achieved["steps"] == 1


def test_history_is_recorded() -> None:
    model = tiny()
    pruned(model)
    context = context_for(model)
    Recover().apply(model, RecoverConfig(epochs=2, batch_size=8, validation=0.25), context)
    assert len(context.achieved["losses"]) == context.achieved["steps"] == 2 * 3
    assert [epoch["epoch"] for epoch in context.achieved["history"]] == [1, 2]
    assert context.achieved["history"][0]["validation_accuracy"] is not None
    assert context.achieved["layers_with_zeros_kept"] == 1
    assert context.achieved["seconds"] > 0


def test_zeros_are_held_and_the_rest_moves() -> None:
    model = tiny()
    layer = pruned(model)
    before = layer.weight.detach().clone()
    Recover().apply(model, RecoverConfig(steps=4, lr=1e-2), context_for(model))
    assert (layer.weight[:, ::2] == 0).all()
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize("parameters", [{"sparsity": 0.008, "scope": "layer"}, {"sparsity": 0.995}])
def test_few_zeros_and_whole_layers_of_them_are_held(parameters: dict[str, Any]) -> None:
    """Under 1 % of a layer, and all of it: neither is taken for chance or for a new layer."""
    dense = tiny()
    with torch.no_grad():
        dense.get_submodule("vit.layers.1.mlp.fc1").weight *= 1e-6
    data = Data(test=coloured(12, 1), train=coloured(40, 0))
    steps = (Step.of("magnitude-pruning", **parameters), Step.of("recover", steps=3, lr=1e-2))
    cut, recovered = (
        pah_opt.apply(dense, Recipe(steps=steps[:count]), data, on_collapse="ignore").model for count in (1, 2)
    )
    layers = {path: module for path, module in cut.named_modules() if isinstance(module, nn.Linear)}
    del layers["classifier"]
    assert any(0 < (layer.weight == 0).float().mean() < 0.01 or (layer.weight == 0).all() for layer in layers.values())
    for path, layer in layers.items():
        assert (recovered.get_submodule(path).weight[layer.weight == 0] == 0).all(), path


def test_learning_from_the_dense_model_pulls_towards_it() -> None:
    reference = tiny(seed=4)
    pixels = coloured(24, 0).pixel_values
    distances = {}
    for alpha in (0.0, 1.0):
        model = tiny(seed=1)
        config = RecoverConfig(steps=40, lr=3e-3, distill=alpha, batch_size=8)
        Recover().apply(model, config, context_for(model, reference=reference))
        with torch.no_grad():
            gap = model(pixels).logits.softmax(1) - reference(pixels).logits.softmax(1)
        distances[alpha] = float(gap.abs().mean())
    assert distances[1.0] < 0.5 * distances[0.0]


def test_without_distillation_no_dense_model_is_needed() -> None:
    model = tiny()
    Recover().apply(model, RecoverConfig(steps=1, distill=False), context_for(model, reference=None))
    with pytest.raises(DataError, match="distillation needs a teacher"):
        Recover().apply(model, RecoverConfig(steps=1), context_for(model, reference=None))


def test_yes_means_half_and_not_labels_ignored() -> None:
    assert RecoverConfig.model_validate({"distill": True}).distill == 0.5
    assert RecoverConfig.model_validate({"distill": False}).distill == 0.0
    assert RecoverConfig.model_validate({"distill": 0.9}).distill == 0.9


def test_same_seed_recovers_the_same_weights() -> None:
    states = []
    for seed in (1, 1, 2):
        model = tiny()
        Recover().apply(model, RecoverConfig(epochs=2, batch_size=8), context_for(model, seed=seed))
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert any(not torch.equal(value, states[2][name]) for name, value in states[0].items())


def test_planning_trains_nothing() -> None:
    model = tiny().to("meta")
    assert Recover().apply(model, RecoverConfig(), context_for(model, training=None, planning=True)) is model


def test_missing_training_images_are_named() -> None:
    with pytest.raises(DataError, match="recover trains, and there are no training images"):
        Recover().apply(tiny(), RecoverConfig(), context_for(tiny(), training=None))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"early_stop": 2}, "early_stop needs validation images; set validation"),
        ({"lr": 0}, "greater than 0"),
        ({"epoch": 2}, "epoch"),
        ({"distill": 2}, "less than or equal to 1"),
        ({"augmentation": {"flips": True}}, "flips"),
    ],
)
def test_wrong_parameters_are_refused(parameters: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RecoverConfig.model_validate(parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"freeze": ["encoder.*"]}, r"freeze pattern 'encoder\.\*' matches no parameter"),
        ({"freeze": ["*"]}, "there is no parameter to train"),
        ({"input_size": 12}, "height 12 is not a multiple of the model's patch of 8 pixels; the nearest is 16"),
    ],
)
def test_what_the_model_cannot_do_is_found_before_any_step(parameters: dict[str, Any], message: str) -> None:
    steps = (Step.of("magnitude-pruning", sparsity=0.5), Step.of("recover", **parameters))
    data = Data(test=coloured(12, 1), train=coloured(24, 0))
    with pytest.raises(RecipeError, match=message):
        pah_opt.apply(tiny(), Recipe(steps=steps), data)


def test_features_of_another_input_size_are_refused_at_plan_time() -> None:
    model = tiny_vit(classes=3, image=32)
    found = Recover().check(model, RecoverConfig(distill_features=1.0), context_for(model))
    assert len(found) == 1
    assert "hidden size of 32 at (32, 32) pixels does not match the dense model's 32 at (16, 16)" in found[0]


MATCHING = {"distill_features": 1.0, "steps": 1}
TRAINERS = {
    "recover": Step.of("recover", **MATCHING),
    "gradual-pruning": Step.of("gradual-pruning", rounds=1, **MATCHING),
    "int8-qat": Step.of("torchao", scheme="int8-qat", training=MATCHING),
}
CHANGES = {
    "width": (Step.of("width-pruning", ratio=0.5), "hidden size of 32 at .* does not match the dense model's 64"),
    "input": (Step.of("input-size", size=8), r"\(8, 8\) pixels does not match the dense model's 64 at \(16, 16\)"),
}


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("change", CHANGES)
def test_features_that_an_earlier_step_changes_are_refused_before_it_runs(trainer: str, change: str) -> None:
    step, message = CHANGES[change]
    model = tiny_vit(classes=3, image=16, patch=4, hidden=64, mlp=64)
    with pytest.raises(RecipeError, match=rf"step 2 \({TRAINERS[trainer].use}\): features are matched.*{message}"):
        pah_opt.plan(model, Recipe(steps=(step, TRAINERS[trainer])))


def test_features_are_matched_after_the_input_size_changed_where_training_has_a_size_of_its_own() -> None:
    model = tiny_vit(classes=3, image=16, patch=4)
    steps = (Step.of("input-size", size=8), Step.of("recover", **MATCHING, input_size=8))
    assert len(pah_opt.plan(model, Recipe(steps=steps)).steps) == 2


@pytest.mark.parametrize("trainer", TRAINERS)
def test_training_after_a_cast_is_refused_with_the_order_that_works(trainer: str) -> None:
    steps = (Step.of("cast"), TRAINERS[trainer])
    with pytest.raises(RecipeError, match="put the cast step after this one"):
        pah_opt.plan(tiny_vit(classes=3, image=16, hidden=64, mlp=64), Recipe(steps=steps))


def test_recovering_without_training_images_is_refused_at_plan_time() -> None:
    with pytest.raises(RecipeError, match="recover"):
        pah_opt.apply(tiny(), Recipe(steps=(Step.of("recover"),)))


def test_recovering_after_int8_is_refused_at_plan_time() -> None:
    steps = (Step.of("torchao", scheme="int8-weight-only"), Step.of("recover"))
    data = Data(test=coloured(12, 1), train=coloured(24, 0))
    with pytest.raises(RecipeError, match="recover"):
        pah_opt.apply(tiny_vit(classes=3, image=16, hidden=64, mlp=128), Recipe(steps=steps), data)


def test_missing_accelerate_is_an_obstacle_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pah_opt.environment.installed_version", lambda _name: None)
    (obstacle,) = Recover().available(Environment())
    assert str(obstacle) == "accelerate is not installed; pip install 'pah-opt[train]'"


def test_declaration_loads_no_torch() -> None:
    import subprocess

    code = "import sys, pah_opt.strategies.training as declared; print('torch' in sys.modules, declared.__name__)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found == "False pah_opt.strategies.training\n"
