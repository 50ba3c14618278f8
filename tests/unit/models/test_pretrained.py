from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from pah_opt.errors import UnsupportedHardwareError, UnsupportedModelError
from pah_opt.models import load_model
from pah_opt.models.known import KNOWN
from pah_opt.models.narrowing import keep_head_dims, keep_heads, keep_units
from pah_opt.models.pretrained import output_size
from pah_opt.models.quiet import quiet_transformers
from pah_opt.testing import TINY_MODELS, tiny_dinov2, tiny_images, tiny_vit

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Case


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for a hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def saved(model: nn.Module, folder: Path, *, pixels: int | None = 32) -> Path:
    from transformers import ViTImageProcessorPil

    with quiet_transformers():
        model.save_pretrained(folder)
        if pixels is not None:
            ViTImageProcessorPil(size={"height": pixels, "width": pixels}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "name", [name for name in sorted(TINY_MODELS) if name.startswith("hf") and "legacy" not in name]
)
def test_a_saved_model_comes_back_with_its_processor_logits_and_no_notes(name: str, tmp_path: Path) -> None:
    model = TINY_MODELS[name]()
    loaded = load_model(saved(model, tmp_path))
    assert type(loaded.model) is type(model)
    assert torch.equal(loaded.model(tiny_images()).logits, model(tiny_images()).logits)
    assert (loaded.weights_origin, loaded.source, loaded.revision, loaded.notes) == (
        "pretrained",
        str(tmp_path),
        None,
        (),
    )
    assert output_size(loaded.processor) == (32, 32)
    assert not loaded.model.training


@pytest.mark.parametrize("name", ["hf-vit", "hf-deit-distilled", "hf-dinov2", "hf-dinov2-swiglu"])
def test_an_unevenly_pruned_model_comes_back_from_an_ordinary_checkpoint(
    name: str, tmp_path: Path, make_case: Callable[..., Case]
) -> None:
    found = make_case(TINY_MODELS[name]())
    first, second = found.layout.blocks
    keep_heads(found.model, first.attention, [0, 3])
    keep_head_dims(found.model, second.attention, [range(6)] * 4, [range(7)] * 4)
    keep_units(found.model, second.mlp, range(20))
    found.adapter.sync(found.model)
    loaded = load_model(saved(found.model, tmp_path))
    assert loaded.notes == ()
    assert type(loaded.model) is type(found.model)
    assert torch.equal(found.logits(loaded.model), found.logits())
    assert found.adapter.disagreements(loaded.model) == []


def test_nothing_is_printed_or_warned(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(saved(tiny_vit(), tmp_path), num_labels=3)
    assert capfd.readouterr() == ("", "")


def test_verbosity_and_progress_bars_of_transformers_are_as_before(tmp_path: Path) -> None:
    from transformers.utils import logging

    saved(tiny_vit(), tmp_path)
    logging.set_verbosity_info()
    try:
        load_model(tmp_path)
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity_warning()


def test_another_number_of_labels_gives_a_seeded_new_classifier_and_says_so(tmp_path: Path) -> None:
    saved(tiny_vit(), tmp_path)
    first, second = (load_model(tmp_path, num_labels=3, seed=1) for _ in range(2))
    assert torch.equal(first.model.classifier.weight, second.model.classifier.weight)
    assert not torch.equal(
        first.model.classifier.weight, load_model(tmp_path, num_labels=3, seed=2).model.classifier.weight
    )
    assert first.model.config.num_labels == 3
    assert "newly initialised, so predictions mean nothing before training: classifier.bias" in first.notes[0]
    assert "classifier.weight had shape (10, 32) in the checkpoint, (3, 32) was wanted" in first.notes


def test_a_backbone_gets_a_new_classifier_and_says_so(tmp_path: Path) -> None:
    loaded = load_model(saved(tiny_dinov2().dinov2, tmp_path), num_labels=7)
    assert loaded.model.classifier.out_features == 7
    assert any("newly initialised" in note for note in loaded.notes)


def test_tensors_without_a_place_are_noted(tmp_path: Path) -> None:
    saved(tiny_vit(blocks=3), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    assert "the checkpoint holds 16 tensors that the model has no place for: vit." in load_model(tmp_path).notes[0]


def test_a_checkpoint_that_does_not_fit_its_config_is_refused(tmp_path: Path) -> None:
    saved(tiny_vit(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(UnsupportedModelError, match=r"lacks 6 tensors, or has them in other shapes: .*it does not fit"):
        load_model(tmp_path)


def test_a_folder_without_processor_gives_none_and_says_so(tmp_path: Path) -> None:
    loaded = load_model(saved(tiny_vit(), tmp_path, pixels=None))
    assert loaded.processor is None
    assert "has no image processor (no preprocessor_config.json)" in loaded.notes[0]


def test_dinov2_is_given_the_position_embeddings_of_its_processors_size(tmp_path: Path) -> None:
    model = tiny_dinov2(image=64)
    wanted = model(tiny_images(image=32)).logits
    loaded = load_model(saved(model, tmp_path))
    assert loaded.model.config.image_size == 32
    assert torch.equal(loaded.model(tiny_images(image=32)).logits, wanted)
    assert "interpolated once from 64x64 to 32x32 pixels" in loaded.notes[0]


def test_a_processor_of_another_size_is_noted_where_nothing_interpolates(tmp_path: Path) -> None:
    loaded = load_model(saved(tiny_vit(), tmp_path, pixels=48))
    assert "the model takes 32x32 pixels, its processor makes 48x48" in loaded.notes[0]


def test_random_weights_of_a_folder_are_seeded_and_said_to_be_random(tmp_path: Path) -> None:
    saved(tiny_vit(), tmp_path)
    torch.manual_seed(0)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    first, second = (load_model(tmp_path, weights="random", seed=3, num_labels=4) for _ in range(2))
    assert torch.equal(torch.rand(1), drawn)
    assert torch.equal(first.model(tiny_images()).logits, second.model(tiny_images()).logits)
    assert first.weights_origin == "random"
    assert "the weights are random" in first.notes[0]
    assert first.model.config.num_labels == 4
    assert first.processor is not None


@pytest.mark.parametrize("known", ["facebook/deit-tiny-patch16-224", "facebook/deit-tiny-distilled-patch16-224"])
def test_a_known_architecture_is_made_offline_at_its_published_size(known: str) -> None:
    loaded = load_model(known, weights="random", num_labels=10)
    parameters = sum(p.numel() for p in loaded.model.parameters())
    assert parameters == {"facebook/deit-tiny-patch16-224": 5_526_346}.get(known, parameters)
    assert output_size(loaded.processor) == (224, 224)
    assert loaded.processor.resample == 3


@pytest.mark.parametrize(
    ("known", "millions"),
    [("google/vit-base-patch16-224", 86.567656), ("google/vit-large-patch16-224", 304.326632),
     ("facebook/deit-small-patch16-224", 22.050664), ("facebook/deit-base-distilled-patch16-224", 87.338192),
     ("facebook/dinov2-small", 22.825192), ("facebook/dinov2-giant", 1139.56)],
)  # fmt: skip
def test_known_architectures_have_the_published_number_of_parameters(known: str, millions: float) -> None:
    with torch.device("meta"):
        model = load_model(known, weights="random", device="meta").model
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(
        millions, rel=2e-2 if "dinov2" in known else 1e-9
    )


def test_googles_vits_are_normalised_to_minus_one_to_one() -> None:
    kind, settings = KNOWN["google/vit-base-patch16-224"].processor
    assert kind == "ViTImageProcessorPil"
    assert settings["image_mean"] == settings["image_std"] == [0.5, 0.5, 0.5]
    assert settings["size"] == {"height": 224, "width": 224}


def test_type_and_device_are_as_asked(tmp_path: Path) -> None:
    saved(tiny_vit(), tmp_path)
    for dtype in ("bfloat16", torch.bfloat16):
        assert {p.dtype for p in load_model(tmp_path, dtype=dtype).model.parameters()} == {torch.bfloat16}
    with pytest.raises(UnsupportedModelError, match="dtype is 'int8'; allowed: float32"):
        load_model(tmp_path, dtype="int8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedHardwareError, match=r"cannot be moved to cuda: .*device='cpu'"):
        load_model(saved(tiny_vit(), tmp_path), device="cuda")


def test_places_that_hold_no_model_say_what_would(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_text("x")
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "artifact.json").write_text("{}")
    for place, message in [
        (tmp_path, "has no config.json"), (file, "is a file; give the folder"),
        (tmp_path / "none", "there is no folder"), (tmp_path / "artifact", r"load it with pah_opt.load\("),
    ]:  # fmt: skip
        with pytest.raises(UnsupportedModelError, match=message):
            load_model(place)


def test_an_unreachable_hub_names_the_remedies() -> None:
    with pytest.raises(UnsupportedModelError, match="weights='random' for google/vit-base-patch16-224's architecture"):
        load_model("google/vit-base-patch16-224")
    with pytest.raises(UnsupportedModelError, match="did you mean 'google/vit-base-patch16-224'"):
        load_model("google/vit-bse-patch16-224", weights="random")


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    saved(tiny_vit(), tmp_path)
    torch.save(tiny_vit().state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match=r"cannot be loaded as an image classifier: .*safetensors"):
        load_model(tmp_path)


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for weights in ("pretrained", "random"):
        with pytest.raises(UnsupportedModelError):
            load_model(tmp_path, weights=weights)


def test_uneven_blocks_of_an_unknown_architecture_are_refused(tmp_path: Path, make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    keep_units(found.model, found.layout.blocks[0].mlp, range(20))
    found.adapter.sync(found.model)
    saved(found.model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["NoSuchViT"]}))
    with pytest.raises(UnsupportedModelError, match="architecture 'NoSuchViT', which transformers does not have"):
        load_model(tmp_path)


def test_weights_of_another_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="weights is 'none'; allowed: pretrained, random"):
        load_model(tmp_path, weights="none")  # type: ignore[arg-type]


@pytest.mark.data
def test_dinov2_small_as_published_loads_at_its_processors_size() -> None:
    import os

    folder = Path(os.environ.get("PAH_OPT_DATA", Path(__file__).parents[4] / "shared" / "data")) / "dinov2-small"
    if not folder.exists():
        pytest.skip(f"the real DINOv2 ViT-S is not at {folder}")
    loaded = load_model(folder, num_labels=10)
    assert loaded.model.config.image_size == 224
    assert sum("newly initialised" in note for note in loaded.notes) == 1


def test_loading_seeds_no_gpu_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tiny_vit(), tmp_path)
    seeded: list[int] = []
    monkeypatch.setattr("torch.cuda.manual_seed_all", seeded.append)
    load_model(tmp_path, weights="random", seed=3)
    assert not seeded
