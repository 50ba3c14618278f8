from __future__ import annotations

import io
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageClassification, ViTImageProcessorPil

from pah_opt.adapt import AdaptConfig
from pah_opt.cli.adapt import _settings
from pah_opt.data import as_split
from pah_opt.testing.models import tiny_vit

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, Path]:
    """A model folder, a folder of red, green and blue images, and where results go."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    model: Any = tiny_vit(classes=7, image=16)
    model.save_pretrained(tmp_path / "model")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "model")
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for channel, name in enumerate(("red", "green", "blue")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, "PNG")
                (folder / f"{index}.png").write_bytes(stream.getvalue())
    return str(tmp_path / "model"), str(tmp_path / "data"), tmp_path / "out"


def test_head_is_fitted_saved_and_reported(run: Callable[..., Result], folders: tuple[str, str, Path]) -> None:
    model, data, out = folders
    result = run(
        "adapt", "--model", model, "--data", data, "--mode", "head", "--out", str(out), "--set", "validation=0"
    )
    assert result.exit_code == 0, result.output
    assert "top-1:" in result.output
    assert "99 of " in result.output
    saved = AutoModelForImageClassification.from_pretrained(out)
    assert saved.config.id2label == {0: "blue", 1: "green", 2: "red"}
    assert (out / "preprocessor_config.json").exists()
    assert json.loads((out / "adaptation.json").read_text())["config"]["mode"] == "head"


def test_settings_are_read_as_yaml_and_json_is_printed(
    run: Callable[..., Result], folders: tuple[str, str, Path]
) -> None:
    model, data, out = folders
    settings = ("epochs=1", "lr=1e-3", "augmentation={flip: true}", "last_blocks=1", "batch_size=8", "validation=0")
    result = run(
        "adapt", "--model", model, "--data", data, "--mode", "last-layers", "--out", str(out), "--json",
        *(part for setting in settings for part in ("--set", setting)),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["config"]["lr"] == 0.001
    assert facts["config"]["augmentation"]["flip"] is True
    assert facts["training"]["steps"] == 3
    assert not (out / "checkpoint").exists()


def test_finished_adaptation_does_not_stand_in_the_way_of_the_next(
    run: Callable[..., Result], folders: tuple[str, str, Path]
) -> None:
    model, data, out = folders
    for rate in ("1e-3", "1e-4"):
        result = run(
            "adapt", "--model", model, "--data", data, "--mode", "last-layers", "--no-cache", "--out", str(out),
            *("--set", "epochs=1", "--set", "last_blocks=1", "--set", "validation=0", "--set", f"lr={rate}"),
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert json.loads((out / "adaptation.json").read_text())["config"]["lr"] == float(rate)


def test_only_the_main_process_writes_and_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pah_opt.adapt.processes import Processes
    from pah_opt.cli.adapt import _hand_over

    waits: list[bool] = []
    monkeypatch.setattr(Processes, "is_main", False)
    monkeypatch.setattr(Processes, "wait", lambda _self: waits.append(True))
    result: Any = SimpleNamespace(model=tiny_vit(image=16), save=lambda *_: pytest.fail("written twice"))
    _hand_over(result, tmp_path, None, as_json=False)
    assert waits == [True]
    assert capsys.readouterr().out == ""


def test_missing_curves_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pah_opt import Data
    from pah_opt.adapt.adaptation import adapt
    from pah_opt.cli.adapt import _hand_over
    from pah_opt.testing import tiny_images

    images = (tiny_images(12, seed=0), torch.arange(12) % 3)
    result = adapt(tiny_vit(), Data(test=as_split(images), train=as_split(images)), "head")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    _hand_over(result, tmp_path, None, as_json=False)
    assert "curves:     not drawn: matplotlib is not installed; pip install 'pah-opt[plots]'" in capsys.readouterr().out
    assert not (tmp_path / "curves.png").exists()


def test_cache_and_no_cache_contradict_each_other(run: Callable[..., Result]) -> None:
    result = run("adapt", "--model", "/nowhere", "--cache", "folder", "--no-cache")
    assert result.exit_code == 2
    assert "--cache folder and --no-cache contradict each other" in result.output


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=1", "did you mean 'epochs'"),
        ("epochs", "write NAME=VALUE"),
        ("epochs=five", 'epochs: got the text "five"; allowed: whole number'),
        ("epochs={", "no YAML value"),
        ("mode=head", "the mode is no setting; write --mode head"),
        ("lora_rank=4", "lora_rank is 4 and mode 'full' does not use it"),
    ],
)
def test_wrong_settings_are_found_before_anything_is_loaded(
    run: Callable[..., Result], setting: str, message: str
) -> None:
    result = run("adapt", "--model", "/nowhere", "--set", setting)
    assert result.exit_code == 2
    assert message in result.output
    assert "recipe" not in result.output


def test_folder_without_a_processor_is_told_to_bring_one(
    run: Callable[..., Result], folders: tuple[str, str, Path]
) -> None:
    model, data, _ = folders
    Path(model, "preprocessor_config.json").unlink()
    result = run("adapt", "--model", model, "--data", data, "--mode", "head")
    assert result.exit_code == 2
    assert "the model comes without an image processor" in result.stderr
    assert "transformers" not in result.stderr


def test_settings_of_the_examples_in_the_help_have_an_effect(run: Callable[..., Result]) -> None:
    shown = [line.split() for line in run("adapt", "--help").output.splitlines() if line.strip().startswith("pah-opt")]
    assert len(shown) == 2
    for words in shown:
        given = dict(itertools.pairwise(words))
        settings = tuple(value for option, value in itertools.pairwise(words) if option == "--set")
        assert AdaptConfig.of(given.get("--mode", "full"), _settings(settings))


def test_embedded_model_can_be_adapted(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("adapt", "--model", "digits", "--data", "digits", "--mode", "head", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "out").config.num_labels == 10


@pytest.mark.parametrize("mode", ["head", "full"])
def test_only_the_trainings_own_state_is_removed(
    mode: str, run: Callable[..., Result], folders: tuple[str, str, Path]
) -> None:
    model, data, out = folders
    (out / "checkpoint").mkdir(parents=True)
    (out / "checkpoint" / "mine.pt").write_bytes(b"x")
    more = () if mode == "head" else ("--set", "epochs=1")
    result = run("adapt", "--model", model, "--data", data, "--mode", mode, "--out", str(out), *more)
    assert result.exit_code == 0, result.output
    assert [path.name for path in (out / "checkpoint").iterdir()] == ["mine.pt"]


def test_fitting_a_head_leaves_the_state_of_an_interrupted_training(
    run: Callable[..., Result], folders: tuple[str, str, Path]
) -> None:
    model, data, out = folders
    state = out / "checkpoint" / "training.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"x")
    assert run("adapt", "--model", model, "--data", data, "--mode", "head", "--out", str(out)).exit_code == 0
    assert state.exists()


def test_no_is_a_word_where_precision_is_set() -> None:
    config = AdaptConfig.of("full", _settings(("mixed_precision=no", "head_first=no")))
    assert (config.mixed_precision, config.head_first) == ("no", False)
