from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pah_opt
from pah_opt import Data
from pah_opt.adapt import AdaptConfig, Augmentation, adaptation, modes
from pah_opt.adapt.adaptation import adapt
from pah_opt.adapt.processes import Processes
from pah_opt.adapt.snapshots import Checkpoint
from pah_opt.data import TensorSplit, label_names
from pah_opt.errors import ArtifactError, DataError, MissingBackendError, RecipeError, UnsupportedModelError
from pah_opt.models import find_adapter
from pah_opt.progress import Progress
from pah_opt.registry import default_registry
from pah_opt.testing.models import TINY_MODELS, tiny_vit

from .conftest import MakeSplit
from .test_fit import Interrupting, poison

QUIET = Progress()
MODES = ("full", "last-layers", "head", "lora")


@pytest.fixture
def data(make_split: MakeSplit) -> Data:
    return Data(test=make_split(30, seed=2), train=make_split(60))


@pytest.fixture
def pretrained() -> nn.Module:
    """A model with seven classes of its own."""
    return tiny_vit(classes=7, image=16, blocks=3)


def options(mode: str, **more: Any) -> dict[str, Any]:
    chosen: dict[str, Any] = {} if mode == "head" else {"epochs": 2, "lr": 1e-4, "batch_size": 16}
    return {**chosen, "progress": QUIET, **({"last_blocks": 1} if mode == "last-layers" else {}), **more}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_learns_new_classes_and_leaves_the_callers_model_alone(
    pretrained: nn.Module, data: Data, mode: Any
) -> None:
    before = copy.deepcopy(pretrained.state_dict())
    result = adapt(pretrained, data, mode, **options(mode))
    assert result.test.accuracy > 0.8
    assert result.class_names == label_names(result.model) == ("a", "b", "c")
    assert find_adapter(result.model, default_registry().adapters).disagreements(result.model) == []
    assert not result.model.training
    assert all(parameter.requires_grad for parameter in result.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in pretrained.state_dict().items())
    assert pretrained.num_labels == 7


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "kind", ["hf-deit-distilled", "hf-dinov2-swiglu", "hf-vit-legacy", "timm-vit", "torchvision-vit"]
)
def test_every_mode_works_on_every_family(make_split: MakeSplit, kind: str, mode: Any) -> None:
    model = TINY_MODELS[kind](classes=7, image=16)
    data = Data(test=make_split(12, seed=2), train=make_split(24))
    result = adapt(model, data, mode, **options(mode, **({} if mode == "head" else {"epochs": 1})))
    adapter = find_adapter(result.model, default_registry().adapters)
    assert adapter.layout(result.model).num_classes == 3
    assert adapter.disagreements(result.model) == []


def test_modes_train_what_they_say(pretrained: nn.Module, data: Data) -> None:
    moved = {}
    for mode in MODES:
        result = adapt(pretrained, data, mode, **options(mode, lr=1e-3) if mode != "head" else options(mode))
        theirs = pretrained.state_dict()
        moved[mode] = {
            name for name, value in result.model.state_dict().items()
            if not name.startswith("classifier") and not torch.equal(value, theirs[name])
        }  # fmt: skip
    assert moved["head"] == set()
    assert {name.split(".")[2] for name in moved["last-layers"] if "layers" in name} == {"2"}
    assert {name.split(".")[-2] for name in moved["lora"]} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert any("embeddings" in name for name in moved["full"])


def test_trained_parameters_are_counted(pretrained: nn.Module, data: Data) -> None:
    counts = {mode: adapt(pretrained, data, mode, **options(mode)).trained_parameters for mode in MODES}
    total = sum(parameter.numel() for parameter in pretrained.parameters()) - 4 * 33
    assert counts["full"] == total
    assert counts["head"] == 33 * 3
    assert counts["head"] < counts["last-layers"] < total
    assert counts["lora"] == 3 * 4 * 2 * 16 * 32 + counts["head"]


def test_cached_states_give_the_same_training_as_the_whole_model(pretrained: nn.Module, data: Data) -> None:
    runs = [adapt(pretrained, data, "last-layers", cache=cache, **options("last-layers")) for cache in (True, False)]
    cached, whole = runs
    assert cached.result.losses == pytest.approx(whole.result.losses, rel=2e-2)
    assert cached.result.steps == whole.result.steps
    assert cached.trained_parameters == whole.trained_parameters
    assert cached.test.loss == pytest.approx(whole.test.loss, rel=2e-2)


def test_augmented_views_are_cached_once_for_each_epoch(pretrained: nn.Module, data: Data) -> None:
    how = Augmentation(flip=True, mixup=0.1)
    result = adapt(pretrained, data, "last-layers", augmentation=how, **options("last-layers"))
    assert result.config.cached_views(54) == 2
    assert AdaptConfig.of("last-layers", {"epochs": 9, "augmentation": how}).cached_views(54) == 4
    assert AdaptConfig.of("last-layers", {"epochs": 9}).cached_views(54) == 1
    by_steps = AdaptConfig.of("last-layers", {"epochs": 1, "steps": 20, "batch_size": 16, "augmentation": how})
    assert [by_steps.cached_views(images) for images in (54, 160, 4000)] == [4, 2, 1], "steps stand for epochs"


@pytest.mark.parametrize("mode", MODES)
def test_same_seed_gives_the_same_model(pretrained: nn.Module, data: Data, mode: Any) -> None:
    twins = []
    for seed in (1, 1, 2):
        twins.append(adapt(pretrained, data, mode, seed=seed, **options(mode)).model.state_dict())
        torch.rand(3)
    assert all(torch.equal(value, twins[1][name]) for name, value in twins[0].items())
    assert any(not torch.equal(value, twins[2][name]) for name, value in twins[0].items())


@pytest.mark.parametrize("mode", ["full", "last-layers", "lora"])
def test_killed_adaptation_goes_on_with_the_same_result(
    pretrained: nn.Module, data: Data, tmp_path: Path, mode: Any
) -> None:
    expected = adapt(pretrained, data, mode, **options(mode))
    where = {"checkpoint": tmp_path / "state", "cache": tmp_path / "cache"}
    with pytest.raises(KeyboardInterrupt):
        adapt(pretrained, data, mode, **options(mode, progress=Interrupting(6)), **where)
    stored = Checkpoint.load(tmp_path / "state" / "training.safetensors")
    assert stored.progress["seconds"] > 0
    replace(stored, progress={**stored.progress, "seconds": 1000.0}).save(tmp_path / "state" / "training.safetensors")
    again = adapt(pretrained, data, mode, **options(mode), **where)
    assert again.seconds > again.result.seconds > 1000.0, "the interrupted run's time counts"
    assert again.result.losses == expected.result.losses
    theirs = expected.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in again.model.state_dict().items())


@pytest.mark.parametrize("mode", ["full", "last-layers", "lora"])
def test_checkpoint_does_not_depend_on_the_last_bits_of_the_fitted_head(
    pretrained: nn.Module, data: Data, tmp_path: Path, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They depend on the number of threads."""
    given = options(mode, checkpoint=tmp_path / "state", cache=tmp_path / "cache")
    first = adapt(pretrained, data, mode, **given)
    fit_head = modes.fit_head

    def nearly(model: nn.Module, *args: Any) -> Any:
        fitted = fit_head(model, *args)
        with torch.no_grad():
            model.get_submodule("classifier").get_parameter("weight").mul_(1 + 1e-6)
        return fitted

    monkeypatch.setattr(modes, "fit_head", nearly)
    assert adapt(pretrained, data, mode, **given).result.losses == first.result.losses


@pytest.mark.parametrize("change", ["head_first", "weights"])
def test_checkpoint_of_another_adaptation_is_refused(
    pretrained: nn.Module, data: Data, tmp_path: Path, change: str
) -> None:
    """Both are frozen here: nothing that is trained tells them apart."""
    given = options("last-layers", checkpoint=tmp_path, freeze=("classifier",), cache=False)
    adapt(pretrained, data, "last-layers", **given)
    if change == "weights":
        with torch.no_grad():
            pretrained.get_submodule("vit.layers.0.mlp.fc1").get_parameter("bias").add_(0.1)
    with pytest.raises(ArtifactError, match="belongs to another training"):
        adapt(pretrained, data, "last-layers", **given, head_first=change != "head_first")


def test_pruned_weights_stay_zero_through_low_rank_additions(pretrained: nn.Module, data: Data) -> None:
    layer = pretrained.get_submodule("vit.layers.0.attention.q_proj")
    with torch.no_grad():
        layer.get_parameter("weight")[:, ::2] = 0
    result = adapt(pretrained, data, "lora", **options("lora", lr=1e-2))
    merged = result.model.get_submodule("vit.layers.0.attention.q_proj").get_parameter("weight")
    assert (merged[:, ::2] == 0).all()
    assert not torch.equal(merged, layer.get_parameter("weight"))


def test_low_rank_additions_leave_no_trace(pretrained: nn.Module, data: Data) -> None:
    result = adapt(pretrained, data, "lora", **options("lora"))
    assert [name for name, _ in result.model.named_modules()] == [name for name, _ in pretrained.named_modules()]
    own, theirs = ({path: set(vars(module)) for path, module in m.named_modules()} for m in (result.model, pretrained))
    own.pop("classifier")  # a new one
    assert own.items() <= theirs.items()


def test_head_with_the_same_labels_is_kept(data: Data) -> None:
    model = tiny_vit(classes=3, image=16, id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2})
    before = model.get_submodule("classifier").get_parameter("weight").detach().clone()
    result = adapt(model, data, "full", **options("full", epochs=1, lr=1e-9, head_first=False, validation=0.0))
    torch.testing.assert_close(result.model.get_submodule("classifier").get_parameter("weight"), before)


def test_package_can_be_called(pretrained: nn.Module, data: Data) -> None:
    result = pah_opt.adapt(pretrained, data, mode="head", progress=QUIET)
    assert result.config.mode == "head"


def test_model_works_on_the_processs_device_and_comes_back(
    pretrained: nn.Module, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several processes have a device each, whatever device the caller's model is on."""

    class Elsewhere(Processes):
        def __init__(self, device: torch.device, precision: Any) -> None:
            super().__init__(device, precision)
            self.device = torch.device("cpu", 0)

    moves: list[Any] = []

    class Watched(type(pretrained)):  # type: ignore[misc]  # its class is known when the test runs
        def to(self, device: Any) -> Any:
            moves.append(device)
            return super().to(device)

    pretrained.__class__ = Watched
    pretrained.register_forward_pre_hook(lambda *_: moves.append("forward") if moves[-1:] != ["forward"] else None)
    monkeypatch.setattr(adaptation, "Processes", Elsewhere)
    adapt(pretrained, data, "head", progress=QUIET)
    assert moves == [torch.device("cpu", 0), "forward", torch.device("cpu")]


def test_inplace_changes_the_callers_model(pretrained: nn.Module, data: Data) -> None:
    result = adapt(pretrained, data, "head", inplace=True, progress=QUIET)
    assert result.model is pretrained
    assert label_names(pretrained) == ("a", "b", "c")


def test_saved_model_is_a_transformers_folder_with_figures_and_curves(
    pretrained: nn.Module, data: Data, tmp_path: Path
) -> None:
    from transformers import AutoModelForImageClassification, ViTImageProcessorPil

    result = adapt(pretrained, data, "full", **options("full"))
    result.save(tmp_path, ViTImageProcessorPil(size={"height": 16, "width": 16}))
    again = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(again(pixels).logits, result.model(pixels).logits)
    stored = json.loads((tmp_path / "adaptation.json").read_text())
    assert stored["test"]["accuracy"] == result.test.accuracy
    assert stored["config"]["mode"] == "full"
    assert not {"distill", "last_blocks", "lora_rank"} & set(stored["config"]), "what has no effect is not recorded"
    history = stored["training"]["history"]
    assert [epoch["epoch"] for epoch in history] == [1, 2]
    assert all(epoch["validation_accuracy"] is not None and epoch["train_loss"] > 0 for epoch in history)
    assert (tmp_path / "preprocessor_config.json").exists()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_model_that_cannot_save_itself_is_named(make_split: MakeSplit, tmp_path: Path) -> None:
    data = Data(test=make_split(12, seed=2), train=make_split(24))
    result = adapt(TINY_MODELS["timm-vit"](image=16), data, "head", progress=QUIET)
    with pytest.raises(ArtifactError, match="a VisionTransformer has no save_pretrained"):
        result.save(tmp_path)


@pytest.mark.parametrize(
    ("mode", "given", "message"),
    [
        ("ful", {}, r"mode is 'ful'; allowed: full, last-layers, head, lora; did you mean 'full'"),
        ("full", {"epoch": 3}, r"epoch: there is no 'epoch' here; allowed: .*; did you mean 'epochs'"),
        ("full", {"epochs": 0}, "epochs: got 0; allowed: whole number >= 1 and <= 10000"),
        ("full", {"epochs": "five"}, 'epochs: got the text "five"; allowed: whole number'),
        ("full", {"augmentation": {"crop": 2}}, "augmentation.crop: got 2; allowed: number >= 0 and <= 0.5"),
        ("head", {"epochs": 3}, "epochs is 3 and mode 'head' does not use it; leave it out; allowed: mixed_precision"),
        ("head", {"lr": 0.1, "early_stop": 2}, r"2 problems\):\n  - lr is 0.1 .*\n  - early_stop is 2 and mode 'head'"),
        ("full", {"distill": 0.5}, "distill is 0.5 and an adaptation has no teacher; .*teacher=…"),
        ("head", {"distill_features": 1.0}, "distill_features is 1.0 and an adaptation has no teacher"),
        ("full", {"last_blocks": 2}, "last_blocks is 2 and mode 'full' does not use it; .*choose mode 'last-layers'"),
        ("full", {"views": 2}, "views is 2 and mode 'full' .*choose mode 'last-layers'"),
        ("full", {"lora_rank": 4}, "lora_rank is 4 and mode 'full' .*choose mode 'lora'"),
        ("lora", {"last_blocks": 2, "views": 2}, r"2 problems\):\n  - last_blocks is 2 .*'lora' .*\n  - views is 2"),
        ("last-layers", {"lora_rank": 4, "lora_alpha": 1.0}, r"2 problems\):\n  - lora_rank is 4 .*\n  - lora_alpha"),
        ("full", {"early_stop": 2, "validation": 0}, r"early_stop is 2 and validation is 0: .*such as validation=0.1"),
        ("last-layers", {"last_blocks": 3}, "adapted this way .*\n  - last_blocks is 3 and the model has 3 blocks"),
    ],
)
def test_wrong_options_are_refused_before_any_work(
    pretrained: nn.Module, data: Data, mode: Any, given: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "fit_head", lambda *_: pytest.fail("the head was fitted first"))
    with pytest.raises(RecipeError, match=message):
        adapt(pretrained, data, mode, progress=QUIET, **given)


def test_images_of_another_size_are_refused(pretrained: nn.Module, make_split: MakeSplit) -> None:
    data = Data(test=make_split(6, size=8), train=make_split(6, size=8, seed=1))
    with pytest.raises(DataError, match=r"have shape \(3, 8, 8\), the model takes \(3, 16, 16\)"):
        adapt(pretrained, data, "head", progress=QUIET)


@pytest.mark.parametrize("mode", MODES)
def test_training_images_of_one_class_are_refused(pretrained: nn.Module, data: Data, mode: Any) -> None:
    assert isinstance(data.train, TensorSplit)
    alike = TensorSplit(data.train.pixel_values, torch.ones_like(data.train.labels), data.train.class_names, "alike")
    with pytest.raises(DataError, match=r"all 60 images of alike are of one class \('b'\): there is nothing to tell"):
        adapt(pretrained, Data(test=data.test, train=alike), mode, progress=QUIET)


@pytest.mark.parametrize("mode", ["full", "last-layers"])
def test_nan_loss_ends_an_adaptation_with_the_last_good_weights(pretrained: nn.Module, data: Data, mode: Any) -> None:
    poison(pretrained, good=6)  # an epoch has four updates
    with pytest.warns(RuntimeWarning, match="training stopped: the loss became nan at update 7 of 8"):
        result = adapt(pretrained, data, mode, **options(mode))
    assert result.result.stopped is not None
    assert "the weights of epoch 1 are kept" in result.result.stopped
    assert result.result.best_epoch == 1
    assert all(torch.isfinite(value).all() for value in result.model.state_dict().values())
    assert result.test.accuracy > 0.8


def test_training_images_are_needed(pretrained: nn.Module, data: Data) -> None:
    with pytest.raises(DataError, match="no training images"):
        adapt(pretrained, Data(test=data.test), "head", progress=QUIET)


def test_model_of_no_known_family_is_refused(data: Data) -> None:
    with pytest.raises(UnsupportedModelError, match="not a Vision Transformer"):
        adapt(nn.Conv2d(3, 3, 3), data, "head", progress=QUIET)


def test_test_images_are_never_trained_on(pretrained: nn.Module, data: Data) -> None:
    class Watched(TensorSplit):
        reads = 0

        def batches(self, batch_size: int, *, shuffle_seed: int | None = None) -> Any:
            Watched.reads += 1
            return super().batches(batch_size, shuffle_seed=shuffle_seed)

        def subset(self, indices: Any) -> Any:
            assert len(indices) <= 8, "only shape and scale of a few images are looked at"
            return super().subset(indices)

    assert isinstance(data.test, TensorSplit)
    watched = Watched(data.test.pixel_values, data.test.labels, data.test.class_names)
    adapt(pretrained, Data(test=watched, train=data.train), "full", **options("full"))
    assert Watched.reads == 1


def test_test_images_of_a_class_without_training_images_are_refused(pretrained: nn.Module, data: Data) -> None:
    assert data.train is not None
    two = data.train.subset([row for row in range(60) if row % 3 < 2])
    with pytest.raises(DataError, match=r"class c of .* has no image in"):
        adapt(pretrained, Data(test=data.test, train=two), "head", progress=QUIET)


@pytest.mark.parametrize(
    ("mode", "given", "error"),
    [
        ("full", {"freeze": ("no.such",)}, UnsupportedModelError),
        ("last-layers", {"freeze": ("no.such",), "last_blocks": 1}, UnsupportedModelError),
        ("lora", {}, MissingBackendError),
    ],
)
def test_what_cannot_be_trained_is_refused_before_images_are_run(
    mode: Any, given: dict[str, Any], error: type[Exception], pretrained: nn.Module, data: Data,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr(modes, "fit_head", lambda *_: pytest.fail("the head was fitted first"))
    with pytest.raises(error):
        adapt(pretrained, data, mode, progress=QUIET, **given)


def test_frozen_parameters_are_not_counted_as_trained(pretrained: nn.Module, data: Data) -> None:
    result = adapt(pretrained, data, "full", **options("full", freeze=("vit.embeddings",)))
    frozen = sum(parameter.numel() for parameter in result.model.get_submodule("vit.embeddings").parameters())
    assert result.trained_parameters == result.parameters - frozen
