"""Folders of images as users have them: which split and class each image is read as, and what is refused."""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from pah_opt.data import labels_of, load_data, split_names
from pah_opt.data.split_words import split_named
from pah_opt.errors import DataError
from pah_opt.splits import Split

from .conftest import MakeImage

Fill = Callable[..., Path]

PETS = ("train/cat", "train/dog", "test/cat", "test/dog")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def fill(make_image: MakeImage, tmp_path: Path) -> Fill:
    """Put images, each another one, into folders below one root."""
    numbers = itertools.count()

    def make(*paths: str, root: str = "pets", names: tuple[str, ...] = ("0.png", "1.png")) -> Path:
        for path in paths:
            (tmp_path / root / path).mkdir(parents=True, exist_ok=True)
            for name in names:
                (tmp_path / root / path / name).write_bytes(make_image(next(numbers)))
        return tmp_path / root

    return make


def classes_read(split: Split) -> list[str]:
    return [split.class_names[label] for label in labels_of(split).tolist()]


def pixels(split: Split) -> set[tuple[float, ...]]:
    return {tuple(image.flatten().tolist()) for batch in split.batches(9) for image in batch.pixel_values}


@pytest.mark.parametrize("name", ["train", "test", "test-tube", "eval", "dev", "my val", "train_2"])
def test_class_named_like_a_split_stays_in_its_split(fill: Fill, processor: Any, name: str) -> None:
    classes = sorted((name, "bus", "plane"))
    data = load_data(fill(*(f"{split}/{one}" for split in ("train", "test") for one in classes)), processor)
    assert data.train is not None
    for split in (data.train, data.test):
        assert classes_read(split) == [one for one in classes for _ in range(2)]
        assert len(pixels(split)) == 6
    assert not pixels(data.train) & pixels(data.test)


@pytest.mark.parametrize("train", ["train", "Training", "data/train", "my-train", "train-2024", "train/animals"])
@pytest.mark.parametrize("test", ["val", "validation", "dev_set", "images/valid"])
def test_folders_named_after_splits_are_found(fill: Fill, processor: Any, train: str, test: str) -> None:
    below = "animals/" * train.endswith("animals")
    test = f"{test}/{below}"
    folder = fill(f"{train}/cat", f"{train}/dog", f"{test}/cat", f"{test}/dog", "extra/fox")
    assert split_names(folder) == ("train", "validation")
    data = load_data(folder, processor, test_split="validation")
    assert data.train is not None
    assert classes_read(data.train) == classes_read(data.test) == ["cat", "cat", "dog", "dog"]


def test_name_of_two_splits_is_refused() -> None:
    assert [split_named(name) for name in ("trainer", "contest", "test.png")] == [None, None, "test"]
    with pytest.raises(DataError, match=r"'train-val' is named after two splits \(train, validation\)"):
        split_named("train-val")


def test_class_folders_alone_are_training_images(fill: Fill, processor: Any) -> None:
    folder = fill("cat", "dog", names=tuple(f"{index}.png" for index in range(10)))
    assert split_names(folder) == ("train",)
    data = load_data(folder, processor, test_share=0.2)
    assert data.train is not None
    assert (len(pixels(data.train)), len(pixels(data.test))) == (16, 4)


def test_file_names_can_name_the_splits(fill: Fill, processor: Any) -> None:
    data = load_data(fill("cat", "dog", names=("train_0.png", "train_1.png", "test_0.png")), processor)
    assert data.train is not None
    assert (classes_read(data.train), classes_read(data.test)) == (["cat", "cat", "dog", "dog"], ["cat", "dog"])


def test_class_folder_that_is_a_link_is_read(fill: Fill, processor: Any) -> None:
    folder = fill(*PETS)
    for split in ("train", "test"):
        (folder / split / "fox").symlink_to(fill(f"{split}/fox", root="elsewhere") / split / "fox")
    data = load_data(folder, processor)
    assert data.test.class_names == ("cat", "dog", "fox")
    assert len(pixels(data.test)) == 6


def test_one_folder_as_two_classes_is_refused(fill: Fill, processor: Any) -> None:
    folder = fill(*PETS)
    for split in ("train", "test"):
        (folder / split / "fox").symlink_to("dog")
    with pytest.raises(DataError, match=r"test/dog and test/fox are one folder by a link"):
        load_data(folder, processor)


@pytest.mark.parametrize("link", ["test", "test/dog", "test/dog/1.png"])
def test_image_in_two_splits_by_a_link_is_refused(fill: Fill, processor: Any, link: str) -> None:
    folder = fill(*(path for path in PETS if not path.startswith(link)))
    (folder / link).unlink(missing_ok=True)
    (folder / link).symlink_to(folder / link.replace("test", "train"))
    with pytest.raises(DataError, match=r"pets/train/.*\.png of .* would be read twice, in 'train' and in 'test'"):
        load_data(folder, processor)


def test_link_to_a_folder_that_it_lies_in_has_nothing_in_it(fill: Fill, processor: Any) -> None:
    folder = fill(*PETS)
    (folder / "train" / "cat" / "again").symlink_to(folder)
    assert len(load_data(folder, processor).test) == 4
    (folder / "train" / "fox").symlink_to(folder)
    with pytest.raises(DataError, match="class folder train/fox has no image"):
        load_data(folder, processor)


@pytest.mark.parametrize("file", [None, "1.heic", "notes.txt"])
def test_class_folder_without_images_is_named(fill: Fill, processor: Any, file: str | None) -> None:
    folder = fill(*PETS)
    (folder / "train" / "fox").mkdir()
    if file is not None:
        (folder / "train" / "fox" / file).write_bytes(b"x")
    with pytest.raises(DataError, match=r"class folder train/fox has no image in it .*add images .*or remove"):
        load_data(folder, processor)


def test_hidden_files_and_folders_are_left_out(fill: Fill, processor: Any) -> None:
    folder = fill(*PETS, "train/.thumbnails", "__MACOSX/train/fox")
    (folder / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    data = load_data(folder, processor)
    assert data.train is not None
    assert len(data.train) == 4


@pytest.mark.parametrize("stray", ["train", "test/cat/sub"])
def test_image_at_another_depth_is_named(fill: Fill, processor: Any, stray: str) -> None:
    folder = fill(*PETS)
    fill(stray, names=("stray.png",))
    with pytest.raises(
        DataError, match=rf"the image {stray}/stray.png lies at another depth .*such as t.*/cat/0.png\); move it"
    ):
        load_data(folder, processor)


def test_archive_among_images_is_named(fill: Fill, processor: Any) -> None:
    folder = fill(*PETS)
    with zipfile.ZipFile(folder / "train" / "cat" / "old.zip", "w") as archive:
        archive.write(folder / "test" / "cat" / "0.png", "0.png")
    with pytest.raises(DataError, match=r"train/cat/old.zip is an archive among image files.*unpack it, or move"):
        load_data(folder, processor)


def test_images_without_class_folders_are_named(fill: Fill, processor: Any) -> None:
    with pytest.raises(DataError, match=r"image 0.png is in no class folder; give train/CLASS/… and test/CLASS/…"):
        load_data(fill("."), processor)
    with pytest.raises(
        DataError,
        match=r"image train/0.png is in no class folder: train is the folder of the split train; .*one named train",
    ):
        load_data(fill("cat", "dog", "train", root="flat"), processor, test_share=0.5)


@pytest.mark.parametrize("name", ["br[1]", "what?", "a*b"])
def test_folder_whose_name_looks_like_a_pattern_is_read(
    fill: Fill, make_image: MakeImage, tmp_path: Path, processor: Any, name: str
) -> None:
    folder = fill(*PETS, root=name)
    assert len(load_data(folder, processor).test) == 4
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    for start, split in enumerate(("train", "test")):
        images = [{"bytes": make_image(start * 2 + index), "path": None} for index in range(2)]
        table = datasets.Dataset.from_dict({"image": images, "label": [0, 1]}, features=features)
        (tmp_path / f"table{name}").mkdir(exist_ok=True)
        table.to_parquet(tmp_path / f"table{name}" / f"{split}-00000-of-00001.parquet")
    assert len(load_data(tmp_path / f"table{name}", processor).test) == 2


def describe(folder: Path, split: str) -> None:
    files = [(f"{one}/{index}.png", f"{one}s") for one in ("cat", "dog", "test") for index in range(2)]
    rows = [json.dumps({"file_name": file, "label": label}) for file, label in files]
    (folder / split / "metadata.jsonl").write_text("\n".join(rows))


def test_table_beside_the_images_of_one_split_only_is_named(fill: Fill, processor: Any) -> None:
    folder = fill(*PETS)
    (folder / "train" / "metadata.csv").write_text("file_name,label\ncat/0.png,cat\n")
    with pytest.raises(DataError, match=r"train/metadata.csv is a table .* there is none for test; give each split"):
        load_data(folder, processor)


def test_tables_beside_the_images_of_each_split_give_the_labels(fill: Fill, processor: Any) -> None:
    folder = fill(*PETS, "train/test", "test/test")
    for split in ("train", "test"):
        describe(folder, split)
    data = load_data(folder, processor)
    assert data.train is not None
    assert classes_read(data.test) == ["cats", "cats", "dogs", "dogs", "tests", "tests"]
    assert not pixels(data.train) & pixels(data.test)


def test_table_beside_images_without_splits_gives_the_labels(fill: Fill, processor: Any) -> None:
    folder = fill("all/cat", "all/dog", "all/test", root="[1]")
    describe(folder, "all")
    (folder / "all" / "test").rename(folder / "all" / "tests")
    table = folder / "all" / "metadata.jsonl"
    table.write_text(table.read_text().replace("test/", "tests/"))
    data = load_data(folder, processor, test_share=0.5)
    assert set(data.test.class_names) == {"cats", "dogs", "tests"}


def test_files_that_a_data_card_lists_are_read(fill: Fill, processor: Any) -> None:
    folder = fill("one/cat", "one/dog", "two/cat", "two/dog")
    listed = "data_files: [{split: %s, path: 'one/**'}, {split: test, path: '%s/**'}]"
    card = f"---\nconfigs:\n- config_name: default\n  {listed}\n---\n"
    (folder / "README.md").write_text(card % ("train", "two"))
    assert len(load_data(folder, processor).test) == 4
    (folder / "README.md").write_text(card % ("train", "one"))
    with pytest.raises(DataError, match=r"one/cat/0.png of .* would be read twice, in 'train' and in 'test'"):
        load_data(folder, processor)
    (folder / "README.md").write_text(card % ("whole", "one"))
    assert load_data(folder, processor).train is None
