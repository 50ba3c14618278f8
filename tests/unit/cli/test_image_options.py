"""Every command that reads images can be told which: split, share, columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pah_opt.data import digits_processor
from pah_opt.report import Report

COMMANDS: dict[str, tuple[str, ...]] = {
    "measure": ("measure", "MODEL", "--quick", "--batch", "1"),
    "compare": ("compare", "one=MODEL", "two=MODEL", "--quick", "--batch", "1"),
    "run": ("run", "lossless", "--model", "MODEL"),
    "adapt": ("adapt", "--model", "MODEL", "--mode", "head"),
    "search": ("search", "small", "--model", "MODEL"),
    "study": ("study", "--scale", "medium", "--model", "MODEL"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT of two classes, with its processor."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    names = {0: "cat", 1: "dog"}
    config = ViTConfig(
        **sizes, num_hidden_layers=1, image_size=16, patch_size=8, id2label=names, label2id={"cat": 0, "dog": 1}
    )
    path = tmp_path_factory.mktemp("models") / "tiny"
    ViTForImageClassification(config).save_pretrained(path)
    digits_processor(16).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits as ImageNet has them, ``validation`` for ``test``, and two columns of labels, as CIFAR-100 has."""
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    def split(count: int) -> Any:
        columns = {
            "img": [Image.new("RGB", (16, 16), (index, 0, 0)) for index in range(count)],
            "kind": [index % 2 for index in range(count)],
            "shade": [index % 3 for index in range(count)],
        }
        kinds, shades = datasets.ClassLabel(names=["cat", "dog"]), datasets.ClassLabel(names=["dark", "grey", "light"])
        features = datasets.Features({"img": datasets.Image(), "kind": kinds, "shade": shades})
        return datasets.Dataset.from_dict(columns, features=features)

    path = tmp_path_factory.mktemp("images") / "pets"
    datasets.DatasetDict({"train": split(20), "validation": split(10)}).save_to_disk(path)
    return path


def line(command: str, model: Path, images: Path) -> list[str]:
    return [*(word.replace("MODEL", str(model)) for word in COMMANDS[command]), "--data", str(images)]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "no split 'test'; splits: train, validation; name the one to measure on with test_split=…"),
        (("--test-split", "nowhere"), "no split 'nowhere'"),
        (("--test-split", "validation"), "name the right one with label_column=… (--label-column)"),
        (("--test-split", "validation", "--label-column", "colour"), "colour"),
        (("--test-split", "validation", "--label-column", "kind", "--image-column", "photo"), "photo"),
        (("--test-share", "0.001", "--label-column", "nothing"), "nothing"),
    ],
)
def test_wrong_choice_of_images_is_said(
    run: Any, model: Path, images: Path, tmp_path: Path, command: str, options: tuple[str, ...], said: str
) -> None:
    result = run(*line(command, model, images), *options, "--out", str(tmp_path / "out"))
    assert result.exit_code != 0
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize(("options", "count"), [(("--test-split", "validation"), 10), (("--test-share", "0.3"), 6)])
def test_images_that_are_chosen_are_measured(
    run: Any, model: Path, images: Path, tmp_path: Path, options: tuple[str, ...], count: int
) -> None:
    result = run(*line("measure", model, images), *options, "--label-column", "kind", "--out", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert Report.load(tmp_path / "report.json").models[0].provenance.n_images == count


@pytest.mark.parametrize("command", ["measure", "compare"])
def test_a_choice_of_images_without_images_is_refused(run: Any, command: str) -> None:
    result = run(command, "one", "--test-limit", "5", "--label-column", "kind")
    assert result.exit_code == 2
    assert "--test-limit, --label-column: there are no images to choose from; give --data too" in " ".join(
        result.stderr.split()
    )
