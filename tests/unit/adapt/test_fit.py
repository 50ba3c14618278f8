from __future__ import annotations

import copy
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from pah_opt.adapt import Augmentation, Score, TrainResult, TrainSettings, evaluate, fit, loop
from pah_opt.adapt.job import Job
from pah_opt.data import TensorSplit
from pah_opt.errors import ArtifactError, DataError, MissingBackendError, UnsupportedModelError
from pah_opt.layout import ModelAdapter
from pah_opt.progress import Progress
from pah_opt.testing.models import TINY_MODELS, tiny_vit

from .conftest import MakeSplit

T = TypeVar("T")
QUICK = TrainSettings(epochs=4, lr=5e-3, batch_size=12)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


class Interrupting(Progress):
    """Ends the process, as it were, after so many updates."""

    def __init__(self, after: int) -> None:
        self.after = after

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        for count, item in enumerate(items, 1):
            yield item
            if count == self.after:
                raise KeyboardInterrupt


def test_training_learns(model: nn.Module, adapter: ModelAdapter, train: TensorSplit, validation: TensorSplit) -> None:
    before = evaluate(model, validation, adapter)
    result = fit(model, train, QUICK.model_copy(update={"epochs": 12}), adapter=adapter)
    after = evaluate(model, validation, adapter)
    assert after.accuracy > 0.9 > before.accuracy
    assert result.losses[-1] < 0.5 * result.losses[0]


@pytest.mark.parametrize("kind", list(TINY_MODELS))
def test_every_family_can_be_trained_with_features_and_recomputed_blocks(kind: str, make_split: MakeSplit) -> None:
    from pah_opt.models import find_adapter
    from pah_opt.registry import default_registry

    model, teacher = (TINY_MODELS[kind](classes=3, image=16, seed=seed) for seed in (0, 1))
    adapter = find_adapter(model, default_registry().adapters)
    model, teacher = adapter.prepare(model), adapter.prepare(teacher)
    settings = TrainSettings(steps=2, batch_size=8, checkpointing=True, distill=0.5, distill_features=1.0, head_lr=1e-3)
    before = weights(model)
    result = fit(model, make_split(16), settings, adapter=adapter, teacher=teacher)
    assert result.steps == 2
    assert not same(before, weights(model))
    assert adapter.disagreements(model) == []


def test_same_seed_gives_the_same_weights_bit_for_bit(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit
) -> None:
    settings = QUICK.model_copy(update={"augmentation": Augmentation(flip=True, crop=0.1, mixup=0.2)})
    twins = [copy.deepcopy(model) for _ in range(3)]
    for twin, seed in zip(twins, (1, 1, 2), strict=True):
        fit(twin, train, settings, adapter=adapter, seed=seed)
        torch.rand(7)  # the caller's own draws have no influence
    assert same(weights(twins[0]), weights(twins[1]))
    assert not same(weights(twins[0]), weights(twins[2]))


def test_dropout_is_seeded_too(adapter: ModelAdapter, train: TensorSplit) -> None:
    twins = [tiny_vit(classes=3, image=16, hidden_dropout_prob=0.3) for _ in range(2)]
    for twin in twins:
        fit(twin, train, QUICK, adapter=adapter)
    assert same(*map(weights, twins))


def test_parts_of_a_batch_give_the_same_result_as_the_whole(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit
) -> None:
    twin = copy.deepcopy(model)
    settings = TrainSettings(steps=3, lr=1e-3, batch_size=12)
    whole = fit(model, train, settings, adapter=adapter)
    parts = fit(twin, train, settings.model_copy(update={"accumulation": 5}), adapter=adapter)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
    assert parts.history[0].train_accuracy == whole.history[0].train_accuracy


def test_recomputing_blocks_does_not_change_the_result(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit
) -> None:
    twin = copy.deepcopy(model)
    settings = TrainSettings(steps=3, batch_size=12)
    fit(model, train, settings, adapter=adapter)
    fit(twin, train, settings.model_copy(update={"checkpointing": True}), adapter=adapter)
    for name, value in weights(model).items():
        torch.testing.assert_close(weights(twin)[name], value)


def test_nothing_is_left_behind(model: nn.Module, adapter: ModelAdapter, train: TensorSplit) -> None:
    model.get_submodule("vit.layers.0").requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    attributes = {path: set(vars(module)) for path, module in model.named_modules()}
    random.seed(1)
    torch.manual_seed(1)
    expected = (random.random(), float(torch.rand(())))
    random.seed(1)
    torch.manual_seed(1)
    fit(model, train, QUICK, adapter=adapter, teacher=copy.deepcopy(model))
    assert (random.random(), float(torch.rand(()))) == expected
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    assert {path: set(vars(module)) for path, module in model.named_modules()} == attributes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_frozen_weights_do_not_move(model: nn.Module, adapter: ModelAdapter, train: TensorSplit) -> None:
    before = weights(model)
    fit(model, train, QUICK.model_copy(update={"freeze": ("vit.layers.0", "vit.embeddings")}), adapter=adapter)
    moved = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert moved
    assert not any(name.startswith(("vit.layers.0.", "vit.embeddings.")) for name in moved)


def test_zeros_made_on_purpose_stay_zero(model: nn.Module, adapter: ModelAdapter, train: TensorSplit) -> None:
    layer = model.get_submodule("vit.layers.0.mlp.fc1")
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight[:, ::2] = 0
    twin = copy.deepcopy(model)
    fit(model, train, QUICK, adapter=adapter)
    fit(twin, train, QUICK, adapter=adapter, keep_zeros=False)
    assert (layer.weight[:, ::2] == 0).all()
    assert (layer.weight[:, 1::2] != 0).all()
    free = twin.get_submodule("vit.layers.0.mlp.fc1")
    assert isinstance(free, nn.Linear)
    assert (free.weight[:, ::2] != 0).any()


def test_teacher_is_learned_from_and_left_alone(model: nn.Module, adapter: ModelAdapter, train: TensorSplit) -> None:
    teacher = tiny_vit(classes=3, image=16, seed=5)
    before = weights(teacher)
    pixels = train.pixel_values

    def divergence() -> float:
        with torch.no_grad():
            return float((model(pixels).logits.softmax(1) - teacher(pixels).logits.softmax(1)).abs().sum())

    far = divergence()
    settings = QUICK.model_copy(update={"distill": 1.0, "epochs": 20})
    fit(model, train, settings, adapter=adapter, teacher=teacher)
    assert divergence() < 0.5 * far
    assert same(before, weights(teacher))
    assert not teacher.training


def test_best_epoch_is_kept(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit, validation: TensorSplit
) -> None:
    settings = TrainSettings(epochs=6, lr=0.05, batch_size=12, warmup=0.0)
    result = fit(model, train, settings, adapter=adapter, validation=validation)
    assert result.best_epoch is not None
    best = max(result.history, key=lambda e: (e.validation_accuracy or 0, -(e.validation_loss or 0)))
    assert best.epoch == result.best_epoch
    score = evaluate(model, validation, adapter)
    assert score.accuracy == result.validation_accuracy
    assert score.loss == pytest.approx(best.validation_loss, rel=1e-5)


def test_training_stops_early_and_says_why(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit, make_split: MakeSplit
) -> None:
    noise = make_split(24, seed=3)
    unlearnable = TensorSplit(torch.randn_like(noise.pixel_values), noise.labels, noise.class_names)
    settings = TrainSettings(epochs=50, lr=1e-2, batch_size=48, early_stop=2)
    result = fit(model, train, settings, adapter=adapter, validation=unlearnable)
    assert len(result.history) < 50
    assert result.stopped is not None
    assert f"no better validation result for 2 epochs; epoch {result.best_epoch} was the best" in result.stopped


def test_steps_end_training_within_an_epoch_and_repeat_images_beyond_one(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit
) -> None:
    result = fit(model, train, TrainSettings(steps=6, batch_size=12), adapter=adapter)
    assert result.steps == len(result.losses) == 6
    assert [(epoch.epoch, epoch.step) for epoch in result.history] == [(1, 4), (2, 6)]


def test_last_smaller_batch_counts(model: nn.Module, adapter: ModelAdapter, make_split: MakeSplit) -> None:
    result = fit(model, make_split(13), TrainSettings(epochs=1, batch_size=6), adapter=adapter)
    assert result.steps == 3


def test_history_is_json_data_and_reads_back(model: nn.Module, adapter: ModelAdapter, train: TensorSplit) -> None:
    import json

    result = fit(model, train, QUICK, adapter=adapter, validation=train)
    assert TrainResult.from_data(json.loads(json.dumps(result.to_data()))) == result


def test_killed_training_goes_on_with_the_same_result(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit, validation: TensorSplit, tmp_path: Path
) -> None:
    settings = QUICK.model_copy(update={"augmentation": Augmentation(mixup=0.2)})
    whole, cut = copy.deepcopy(model), copy.deepcopy(model)
    expected = fit(whole, train, settings, adapter=adapter, validation=validation)
    for after in (3, 6, 5):  # within the first epoch, across one, and near the end
        attempt = copy.deepcopy(cut)
        with pytest.raises(KeyboardInterrupt):
            fit(
                attempt, train, settings, adapter=adapter, validation=validation,
                checkpoint=tmp_path, checkpoint_steps=2, progress=Interrupting(after),
            )  # fmt: skip
    result = fit(cut, train, settings, adapter=adapter, validation=validation, checkpoint=tmp_path)
    assert same(weights(whole), weights(cut))
    assert result.losses == expected.losses
    assert [e.validation_loss for e in result.history] == [e.validation_loss for e in expected.history]
    assert [e.train_accuracy for e in result.history] == [e.train_accuracy for e in expected.history]


def test_epochs_seconds_include_validation(
    model: nn.Module,
    adapter: ModelAdapter,
    train: TensorSplit,
    validation: TensorSplit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]

    def slow(*args: Any, **options: Any) -> Score:
        now[0] += 100.0
        return evaluate(*args, **options)

    monkeypatch.setattr(loop, "evaluate", slow)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    settings = QUICK.model_copy(update={"epochs": 2})
    result = fit(model, train, settings, adapter=adapter, validation=validation)
    assert [epoch.seconds for epoch in result.history] == [100.0, 100.0]
    assert result.seconds == 200.0


def test_finished_training_is_not_done_again(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit, tmp_path: Path
) -> None:
    twin = copy.deepcopy(model)
    first = fit(model, train, QUICK, adapter=adapter, checkpoint=tmp_path)
    again = fit(twin, train, QUICK, adapter=adapter, checkpoint=tmp_path, progress=Interrupting(1))
    assert same(weights(model), weights(twin))
    assert again.losses == first.losses


@pytest.mark.parametrize("change", ["settings", "seed", "images", "weights"])
def test_checkpoint_of_another_training_is_refused(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit, tmp_path: Path, change: str
) -> None:
    fit(copy.deepcopy(model), train, QUICK, adapter=adapter, checkpoint=tmp_path)
    settings = QUICK.model_copy(update={"lr": 1e-4}) if change == "settings" else QUICK
    images = train.subset(range(24)) if change == "images" else train
    other = tiny_vit(classes=3, image=16, seed=9) if change == "weights" else model
    with pytest.raises(ArtifactError, match="belongs to another training"):
        fit(other, images, settings, adapter=adapter, checkpoint=tmp_path, seed=int(change == "seed"))


@pytest.mark.parametrize("change", ["frozen weights", "teacher", "processes"])
def test_checkpoint_is_of_frozen_weights_teacher_and_processes_too(
    model: nn.Module,
    adapter: ModelAdapter,
    train: TensorSplit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    settings = QUICK.model_copy(update={"freeze": ("vit.embeddings",), "distill": 0.5})
    teacher = tiny_vit(classes=3, image=16, seed=5)
    own = copy.deepcopy(model)
    fit(copy.deepcopy(own), train, settings, adapter=adapter, teacher=teacher, checkpoint=tmp_path)
    if change == "processes":
        identity = Job.identity
        monkeypatch.setattr(Job, "identity", lambda self, trained, processes: identity(self, trained, processes + 1))
    changed = {"teacher": teacher, "frozen weights": own}.get(change)
    if changed is not None:
        with torch.no_grad():
            changed.get_parameter("vit.embeddings.patch_embeddings.projection.bias").add_(0.1)
    with pytest.raises(ArtifactError, match=r"another training .*weights, teacher or number of processes"):
        fit(own, train, settings, adapter=adapter, teacher=teacher, checkpoint=tmp_path)


def test_teacher_without_use_is_no_part_of_the_training(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit, tmp_path: Path
) -> None:
    first, second = copy.deepcopy(model), copy.deepcopy(model)
    result = fit(first, train, QUICK, adapter=adapter, teacher=tiny_vit(classes=3, image=16), checkpoint=tmp_path)
    assert fit(second, train, QUICK, adapter=adapter, checkpoint=tmp_path).losses == result.losses


def test_origin_stands_for_weights_whose_last_bits_vary(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit, tmp_path: Path
) -> None:
    nearly = copy.deepcopy(model)
    with torch.no_grad():
        nearly.get_submodule("classifier").get_parameter("bias").add_(1e-6)
    options: dict[str, Any] = {"adapter": adapter, "checkpoint": tmp_path}
    first = fit(model, train, QUICK, origin="head fitted by L-BFGS", **options)
    assert fit(nearly, train, QUICK, origin="head fitted by L-BFGS", **options).losses == first.losses
    with pytest.raises(ArtifactError, match="belongs to another training"):
        fit(nearly, train, QUICK, origin="something else", **options)


def poison(model: nn.Module, good: int) -> None:
    """Let the logits of a model in training turn NaN after so many forward passes."""
    passes = 0

    def spoil(module: nn.Module, _args: Any, output: Any) -> Any:
        nonlocal passes
        passes += module.training
        if module.training and passes > good:
            output.logits = output.logits * float("nan")
        return output

    model.register_forward_hook(spoil)


def test_nan_loss_stops_and_keeps_the_last_good_weights(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit
) -> None:
    poison(model, good=6)  # the first epoch has four batches
    with pytest.warns(RuntimeWarning, match="training stopped: the loss became nan at update 7 of 16"):
        result = fit(model, train, QUICK, adapter=adapter)
    assert result.stopped is not None
    assert "use a lower lr (now 0.005)" in result.stopped
    assert "the weights of epoch 1 are kept" in result.stopped
    assert result.steps == 6
    assert all(torch.isfinite(value).all() for value in weights(model).values())


def test_nan_in_the_first_epoch_puts_the_weights_from_before_back(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit
) -> None:
    before = weights(model)
    poison(model, good=2)
    with pytest.warns(RuntimeWarning, match="the weights from before training are put back"):
        fit(model, train, QUICK, adapter=adapter)
    assert same(before, weights(model))


@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize(("broken", "kept"), [(4, "the weights from before training"), (8, "the weights of epoch 1")])
def test_weights_that_an_epochs_last_update_breaks_are_not_kept(
    model: nn.Module,
    adapter: ModelAdapter,
    train: TensorSplit,
    validation: TensorSplit,
    monkeypatch: pytest.MonkeyPatch,
    broken: int,
    kept: str,
    judged: bool,
) -> None:
    """No loss has been computed with them yet."""
    update = loop.Loop._update

    def spoiled(self: loop.Loop, *args: Any) -> None:
        update(self, *args)
        if self.step == broken:
            with torch.no_grad():
                self.parameters["classifier.bias"][0] = float("inf")

    monkeypatch.setattr(loop.Loop, "_update", spoiled)
    with pytest.warns(RuntimeWarning, match=f"classifier.bias holds NaN or infinity after update {broken} of 8; use a"):
        result = fit(
            model, train, QUICK.model_copy(update={"epochs": 2}),
            adapter=adapter, validation=validation if judged else None,
        )  # fmt: skip
    assert kept in (result.stopped or "")
    assert len(result.history) == broken // 4 - 1
    assert all(torch.isfinite(value).all() for value in weights(model).values())


def test_nan_before_the_first_update_is_an_error(model: nn.Module, adapter: ModelAdapter, train: TensorSplit) -> None:
    with torch.no_grad():
        model.get_submodule("classifier").get_parameter("bias").fill_(float("nan"))
    with pytest.raises(UnsupportedModelError, match="the loss is nan before the first update"):
        fit(model, train, QUICK, adapter=adapter)


def test_bf16_runs_products_in_bf16_and_keeps_float32_weights(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pah_opt.models.precision.multiplies_bf16", lambda _: True)
    seen = set()
    handle = model.get_submodule("vit.layers.0.mlp.fc1").register_forward_hook(lambda _m, _a, out: seen.add(out.dtype))
    fit(model, train, QUICK.model_copy(update={"mixed_precision": "bf16"}), adapter=adapter)
    handle.remove()
    assert seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    fit(model, train, QUICK, adapter=adapter)  # another precision afterwards is no obstacle


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TrainSettings(early_stop=1), "early_stop needs validation images"),
        (TrainSettings(distill=0.5), "distillation needs a teacher"),
        (TrainSettings(distill_features=1.0), "distillation needs a teacher"),
    ],
)
def test_settings_that_need_more_say_what(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit, settings: TrainSettings, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        fit(model, train, settings, adapter=adapter)


def test_labels_that_do_not_fit_the_head_are_refused(
    model: nn.Module, adapter: ModelAdapter, make_split: MakeSplit
) -> None:
    with pytest.raises(DataError, match="the model's head has 3 classes, coloured-0 has 2"):
        fit(model, make_split(classes=2), QUICK, adapter=adapter)


def test_empty_and_foreign_validation_images_are_refused(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit, make_split: MakeSplit
) -> None:
    with pytest.raises(DataError, match="different classes"):
        fit(model, train, QUICK, adapter=adapter, validation=make_split(classes=2))
    empty = train.subset(range(1))
    empty.labels = empty.labels[:0]
    with pytest.raises(DataError, match="is empty"):
        fit(model, train, QUICK, adapter=adapter, validation=empty)


def test_missing_accelerate_names_the_extra(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingBackendError, match=r"pip install 'pah-opt\[train\]'"):
        fit(model, train, QUICK, adapter=adapter)


def test_validation_runs_no_more_images_at_once_than_training(
    model: nn.Module, adapter: ModelAdapter, train: TensorSplit, validation: TensorSplit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Parts of a batch are there to save memory."""
    sizes = []

    def watched(*args: Any, **options: Any) -> Score:
        sizes.append(options["batch_size"])
        return evaluate(*args, **options)

    monkeypatch.setattr(loop, "evaluate", watched)
    settings = TrainSettings(batch_size=12, accumulation=4)
    fit(model, train, settings, adapter=adapter, validation=validation)
    assert sizes == [3] * settings.epochs
