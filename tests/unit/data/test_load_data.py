from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from pah_opt.data import labels_of, load_data, split_names
from pah_opt.errors import DataError, MissingBackendError

from .conftest import MakeImage

Store = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def table(make_image: MakeImage) -> Callable[..., datasets.Dataset]:
    """Make tables of images and labels."""

    def make(
        labels: list[Any], feature: Any = None, *, image: str = "img", label: str = "label", start: int = 0
    ) -> Any:
        features = datasets.Features({
            image: datasets.Image(), label: feature or datasets.ClassLabel(names=["cat", "dog", "emu"]),
        })  # fmt: skip
        pictures = [{"bytes": make_image(start + index), "path": None} for index in range(len(labels))]
        return datasets.Dataset.from_dict({image: pictures, label: labels}, features=features)

    return make


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Write tables as parquet files, as the hub stores them."""

    def write(**splits: datasets.Dataset) -> Path:
        folder = tmp_path / "set"
        folder.mkdir()
        for name, part in splits.items():
            part.to_parquet(folder / f"{name}-00000-of-00001.parquet")
        return folder

    return write


def test_parquet_folder_gives_both_splits(table: Any, store: Store, processor: Any) -> None:
    folder = store(train=table([0, 1, 2, 0]), test=table([2, 1], start=50))
    data = load_data(folder, processor)
    assert data.train is not None
    assert data.test.class_names == ("cat", "dog", "emu")
    assert (labels_of(data.train).tolist(), labels_of(data.test).tolist()) == ([0, 1, 2, 0], [2, 1])
    assert next(data.test.batches(2)).pixel_values.shape == (2, 3, 8, 8)
    assert data.test.name == f"{folder}:test"
    assert set(split_names(folder)) == {"train", "test"}


def test_save_to_disk_folder_is_read(table: Any, tmp_path: Path, processor: Any) -> None:
    both = datasets.DatasetDict({"train": table([0, 1, 2]), "test": table([1, 2])})
    both.save_to_disk(tmp_path / "saved")
    assert len(load_data(tmp_path / "saved", processor).test) == 2


def test_folder_of_images_for_each_class_is_read(make_image: MakeImage, tmp_path: Path, processor: Any) -> None:
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{index}.png").write_bytes(make_image(10 * label + index))
    data = load_data(str(tmp_path / "pets"), processor)
    assert data.test.class_names == ("cat", "dog")
    assert labels_of(data.test).tolist() == [0, 0, 1, 1]
    assert sum(len(batch.labels) for batch in data.test.batches(3)) == 4


def test_text_labels_become_classes_in_alphabetical_order(table: Any, store: Store, processor: Any) -> None:
    text = datasets.Value("string")
    folder = store(train=table(["dog", "cat", "owl"], text), test=table(["owl", "dog"], text))
    data = load_data(folder, processor)
    assert data.test.class_names == ("cat", "dog", "owl")
    assert labels_of(data.test).tolist() == [2, 1]


def test_numbered_labels_get_their_numbers_as_names(table: Any, store: Store, processor: Any) -> None:
    number = datasets.Value("int64")
    data = load_data(store(train=table([0, 1, 3], number), test=table([3, 0], number)), processor)
    assert data.test.class_names == ("0", "1", "2", "3")


def test_parquet_without_the_hubs_metadata_is_read(make_image: MakeImage, tmp_path: Path, processor: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "plain"
    folder.mkdir()
    for split in ("train", "test"):
        images = [{"bytes": make_image(index), "path": "x.png"} for index in range(2)]
        pq.write_table(pa.table({"image": images, "label": [0, 1]}), folder / f"{split}.parquet")
    assert len(load_data(folder, processor).test) == 2


def test_limits_take_balanced_images_and_name_the_split(table: Any, store: Store, processor: Any) -> None:
    folder = store(train=table([0] * 6 + [1] * 4 + [2] * 2), test=table([0, 0, 0, 1, 2]))
    data = load_data(folder, processor, train_limit=6, test_limit=3)
    assert data.train is not None
    assert labels_of(data.train).bincount().tolist() == [2, 2, 2]
    assert sorted(labels_of(data.test).tolist()) == [0, 1, 2]
    assert data.test.name.endswith("test[3 images]")
    assert load_data(folder, processor, test_limit=99).test.name.endswith(":test")


def test_limited_choice_depends_on_the_seed_alone(table: Any, store: Store, processor: Any) -> None:
    folder = store(train=table([0, 1, 2] * 5), test=table([0, 1, 2] * 5))
    one, same, other = (load_data(folder, processor, test_limit=6, seed=seed).test.fingerprint for seed in (0, 0, 1))
    assert one == same != other


def test_limit_below_one_is_refused(table: Any, store: Store, processor: Any) -> None:
    with pytest.raises(DataError, match="a limit of 0 images"):
        load_data(store(train=table([0, 1]), test=table([0, 1])), processor, test_limit=0)


def test_missing_test_split_says_how_to_name_it(table: Any, store: Store, processor: Any) -> None:
    folder = store(train=table([0, 1, 2, 1]), validation=table([0, 1]))
    with pytest.raises(
        DataError,
        match=r"no split 'test'; splits: train, validation; name .* \(--test-split\), or hold out",
    ):
        load_data(folder, processor)
    assert len(load_data(folder, processor, test_split="validation").test) == 2


def test_share_of_the_training_images_can_be_held_out(table: Any, store: Store, processor: Any) -> None:
    folder = store(train=table([0, 1] * 10))
    data = load_data(folder, processor, test_share=0.2)
    assert data.train is not None
    pixels = [
        {tuple(i.flatten().tolist()) for b in split.batches(9) for i in b.pixel_values}
        for split in (data.train, data.test)
    ]
    assert (len(pixels[0]), len(pixels[1])) == (16, 4)
    assert not pixels[0] & pixels[1]


def test_held_out_images_are_the_same_whatever_the_seed(table: Any, store: Store, processor: Any) -> None:
    """What is trained with one seed and measured with another must not be measured on its training images."""
    folder = store(train=table([0, 1] * 10))
    first, second = (load_data(folder, processor, test_share=0.4, seed=seed) for seed in (0, 1))
    assert first.test.fingerprint == second.test.fingerprint


def test_same_split_cannot_train_and_test(table: Any, store: Store, processor: Any) -> None:
    with pytest.raises(DataError, match="'train' cannot be both"):
        load_data(store(train=table([0, 1])), processor, test_split="train")


def test_source_without_training_images_gives_none(table: Any, store: Store, processor: Any) -> None:
    assert load_data(store(test=table([0, 1])), processor).train is None


def test_private_labels_are_refused_with_the_remedy(table: Any, store: Store, processor: Any) -> None:
    with pytest.raises(DataError, match=r"label -1 of image 0 .*use another one"):
        load_data(store(train=table([0, 1]), test=table([-1, -1])), processor)


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_class_is_refused(table: Any, store: Store, processor: Any, split: str) -> None:
    labels = {"train": [0, 1], "test": [0, 1], split: [1, 1]}
    with pytest.raises(DataError, match=rf"all 2 images of .*{split} are of one class \('"):
        load_data(store(train=table(labels["train"]), test=table(labels["test"])), processor)


def folders(make_image: MakeImage, place: Path, **splits: tuple[str, ...]) -> Path:
    for split, classes in splits.items():
        for label, name in enumerate(classes):
            (place / split / name).mkdir(parents=True)
            for index in range(2):
                (place / split / name / f"{index}.png").write_bytes(make_image(10 * label + index))
    return place


def test_test_class_without_training_images_is_refused(make_image: MakeImage, tmp_path: Path, processor: Any) -> None:
    place = folders(make_image, tmp_path / "pets", train=("cat", "dog"), test=("cats", "dogs"))
    with pytest.raises(
        DataError,
        match=r"classes cats, dogs of .*:test have no image in .*:train, whose classes are cat, dog: .*same name",
    ):
        load_data(place, processor)


def test_declared_class_may_lack_training_images_only_where_it_is_not_tested(
    table: Any, store: Store, processor: Any
) -> None:
    folder = store(train=table([0, 1, 1]), test=table([0, 1]), validation=table([1, 2]))
    assert load_data(folder, processor).test.class_names == ("cat", "dog", "emu")
    with pytest.raises(
        DataError, match=r"class emu of .*:validation has no image in .*:train, whose classes are cat, dog"
    ):
        load_data(folder, processor, test_split="validation")
    assert load_data(folder, processor, test_split="validation", train_split="none").train is None


def test_classes_are_judged_before_images_are_limited(table: Any, store: Store, processor: Any) -> None:
    data = load_data(store(train=table([0, 1, 2]), test=table([0, 1, 2])), processor, train_limit=2)
    assert data.train is not None
    assert len(data.train) == 2


def test_single_class_folder_is_said_to_be_too_few(make_image: MakeImage, tmp_path: Path, processor: Any) -> None:
    place = folders(make_image, tmp_path / "pets", train=("cat",), test=("cat",))
    with pytest.raises(DataError, match=r"one class folder only \(cat\); give at least two class folders in each"):
        load_data(place, processor)


def test_broken_image_file_is_named_with_its_path(make_image: MakeImage, tmp_path: Path, processor: Any) -> None:
    place = folders(make_image, tmp_path / "pets", train=("cat", "dog"), test=("cat", "dog"))
    broken = place / "test" / "dog" / "0.png"
    data = load_data(place, processor)
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataError, match=r"image 2 of .*:test \(.*test/dog/0.png\) cannot be decoded"):
        list(data.test.batches(4))


def test_missing_labels_and_images_are_named(table: Any, store: Store, processor: Any) -> None:
    holes = table([0, 1, 1])
    broken = datasets.Dataset.from_dict(
        {"img": [holes[0]["img"], None, holes[2]["img"]], "label": [0, 1, 1]}, features=holes.features
    )
    data = load_data(store(train=holes, test=broken), processor)
    with pytest.raises(DataError, match=r"image 1 of .*:test is missing"):
        list(data.test.batches(3))


def test_image_file_that_is_gone_is_named(make_image: MakeImage, tmp_path: Path, processor: Any) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            (folder / "0.png").write_bytes(make_image(len(name)))
    data = load_data(tmp_path / "pets", processor)
    (tmp_path / "pets/test/dog/0.png").unlink()
    with pytest.raises(DataError, match=r"image 1 of .*: there is no file .*dog/0.png"):
        list(data.test.batches(2))


def test_several_label_columns_ask_for_a_name(table: Any, store: Store, processor: Any) -> None:
    def two(labels: list[int]) -> Any:
        part = table(labels, label="coarse")
        return part.add_column("fine", labels).cast_column("fine", datasets.ClassLabel(names=["x", "y"]))

    folder = store(train=two([0, 1]), test=two([1, 0]))
    with pytest.raises(DataError, match=r"several columns of labels \(coarse, fine\).*label_column="):
        load_data(folder, processor)
    assert load_data(folder, processor, label_column="fine").test.class_names == ("x", "y")


def test_usual_name_wins_among_several(table: Any, store: Store, processor: Any) -> None:
    def two(labels: list[int]) -> Any:
        part = table(labels, label="fine_label")
        return part.add_column("coarse_label", labels).cast_column(
            "coarse_label", datasets.ClassLabel(names=["x", "y"])
        )

    assert load_data(store(train=two([0, 1]), test=two([1, 0])), processor).test.class_names == ("cat", "dog", "emu")


def test_unknown_column_lists_the_columns(table: Any, store: Store, processor: Any) -> None:
    with pytest.raises(DataError, match="has no column 'pixels'; columns: img, label"):
        load_data(store(train=table([0, 1]), test=table([0, 1])), processor, image_column="pixels")


def test_table_without_images_is_refused(tmp_path: Path, processor: Any) -> None:
    part = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(tmp_path / "texts")
    with pytest.raises(DataError, match="no column of images; columns: text, label"):
        load_data(tmp_path / "texts", processor)


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", Path("nowhere")])
def test_missing_folder_is_named(source: str | Path, processor: Any) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        load_data(source, processor)


def test_unreadable_folder_says_what_it_should_hold(tmp_path: Path, processor: Any) -> None:
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"cannot be read \(.*\); it should hold parquet files"):
        load_data(tmp_path, processor)


def test_hub_out_of_reach_gives_the_remedy(monkeypatch: pytest.MonkeyPatch, processor: Any) -> None:
    def fail(name: str, **options: Any) -> Any:
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub")

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    with pytest.raises(
        DataError, match=r"'uoft-cs/cifar10' cannot be loaded .*ConnectionError.* give its local folder"
    ):
        load_data("uoft-cs/cifar10", processor)


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, processor: Any) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingBackendError, match=r"pip install 'pah-opt\[data\]'"):
        load_data("uoft-cs/cifar10", processor)


def test_progress_bars_stay_out_of_pipes_and_the_setting_comes_back(table: Any, store: Store, processor: Any) -> None:
    seen = []
    original = datasets.load_dataset_builder

    def look(name: str, **options: Any) -> Any:
        seen.append(datasets.is_progress_bar_enabled())
        return original(name, **options)

    folder = store(train=table([0, 1]), test=table([0, 1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset_builder", look)
        load_data(folder, processor)
    assert seen == [False]
    assert datasets.is_progress_bar_enabled()


def test_labels_are_tensors_of_the_split(table: Any, store: Store, processor: Any) -> None:
    data = load_data(store(train=table([0, 1]), test=table([0, 1])), processor)
    assert isinstance(labels_of(data.test), torch.Tensor)


def test_empty_split_is_refused(table: Any, tmp_path: Path, processor: Any) -> None:
    datasets.DatasetDict({"train": table([0, 1]), "test": table([])}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="test is empty"):
        load_data(tmp_path / "saved", processor)


def test_missing_label_is_named(table: Any, store: Store, processor: Any) -> None:
    with pytest.raises(DataError, match=r"image 1 of .*:test has no label"):
        load_data(store(train=table([0, 1]), test=table([0, None, 1])), processor)


def test_share_needs_training_images(table: Any, store: Store, processor: Any) -> None:
    with pytest.raises(DataError, match=r"no split 'train' to hold test images out of; splits: test"):
        load_data(store(test=table([0, 1])), processor, test_share=0.5)


def test_single_table_saved_without_split_names_is_refused(table: Any, tmp_path: Path, processor: Any) -> None:
    table([0, 1]).save_to_disk(tmp_path / "one")
    with pytest.raises(DataError, match="one holds one saved table, and named splits are needed"):
        load_data(tmp_path / "one", processor)


def test_slices_of_a_column_are_lists(table: Any) -> None:
    from pah_opt.data.columns import EncodedImages

    part = table([0, 1, 2]).cast_column("img", datasets.Image(decode=False))
    images = EncodedImages(part, "img", "it")
    assert images[1:] == [images[1], images[2]]
