"""Load labelled images from the hub, or from a local folder, through the datasets library."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from pah_opt.data.checks import check_several_classes, check_trained_classes
from pah_opt.data.columns import Columns
from pah_opt.data.digits import DIGITS_SPLITS, digits_data, is_digits
from pah_opt.data.preprocess import as_processor
from pah_opt.data.sampling import balanced_subset, validation_split
from pah_opt.data.splits import CACHE_BYTES, ImageSplit
from pah_opt.errors import DataError, MissingBackendError
from pah_opt.splits import Data, Split

HELD_OUT_SEED = 0
"""Chooses the images of ``test_share``. Never the user's seed: a second one would measure what the first trained on."""


class ImageChoice(TypedDict, total=False):
    """Which images of a source are read; see :func:`load_data`."""

    train_limit: int | None
    test_limit: int | None
    test_split: str
    test_share: float | None
    image_column: str | None
    label_column: str | None


def load_data(
    source: str | Path,
    processor: Any,
    *,
    train_limit: int | None = None,
    test_limit: int | None = None,
    seed: int = 0,
    train_split: str = "train",
    test_split: str = "test",
    test_share: float | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> Data:
    """Load training and test images, preprocessed as a model wants them.

    Args:
        source: a hub id such as ``uoft-cs/cifar10``; or a local folder in the hub's layout (parquet), saved by
            ``save_to_disk``, or with a folder of images for each class (``train/cat/1.png``, ``test/cat/2.png``); or
            ``digits`` for the images that come with scikit-learn, always cut in the same training and test images.
        processor: the model's image processor, or its hub id or folder.
        train_limit: take at most so many training images, as many of each class as possible.
        test_limit: the same for test images.
        seed: chooses the images that are kept.
        train_split: name of the split to train on; where the source has none, there are no training images.
        test_split: name of the split to measure on.
        test_share: hold out this share of the training images instead, where there is no split to measure on; the same
            images whatever the seed, so that what one command trains on is never what another one measures.
        image_column: the column of images; found by its type where there is one only.
        label_column: the column of labels; found by its type where there is one only.
        cache_bytes: preprocessed pixels to keep in memory for each split.

    Returns:
        Data whose training and test images never overlap.

    Raises:
        DataError: the source cannot be found or read, or its images or labels cannot be used.
        MissingBackendError: the datasets library is not installed.
    """
    processor = as_processor(processor)
    names = _Names(train_split, test_split, test_share, image_column, label_column)
    if is_digits(source):
        names.refuse_others(source)
        data = digits_data(processor=processor)
    else:
        data = _read(source, processor, names, cache_bytes)
    train = None if data.train is None else _limited(data.train, train_limit, seed)
    return Data(test=_limited(data.test, test_limit, seed), train=train)


@dataclass(frozen=True)
class _Names:
    """What of a source is read."""

    train_split: str = "train"
    test_split: str = "test"
    test_share: float | None = None
    image_column: str | None = None
    label_column: str | None = None

    def refuse_others(self, source: str | Path) -> None:
        for name, value in vars(self).items():
            if value != getattr(_Names, name):
                raise DataError(f"{name} is {value!r}, and {source} has nothing to choose; leave it out")


def _read(source: str | Path, processor: Any, names: _Names, cache_bytes: int) -> Data:
    tables = _tables(source)
    _check_names(tables, source, names.train_split, names.test_split, names.test_share)
    columns = Columns.of(tables, source, names.image_column, names.label_column)

    def split(name: str) -> ImageSplit:
        images, labels = columns.read(tables[name], f"{source}:{name}")
        return ImageSplit(images, labels, columns.class_names, processor, f"{source}:{name}", cache_bytes=cache_bytes)

    train: Split | None = split(names.train_split) if names.train_split in tables else None
    if names.test_share is not None and train is not None:
        train, test = validation_split(train, names.test_share, seed=HELD_OUT_SEED)
    else:
        test = split(names.test_split)
    for part in (train, test):
        if part is not None:
            check_several_classes(part)
    if train is not None:
        check_trained_classes(train, test)
    return Data(test=test, train=train)


def _limited(split: Split, limit: int | None, seed: int) -> Split:
    if limit is not None and limit < 1:
        raise DataError(f"a limit of {limit} images leaves nothing of {split.name}; give at least 1")
    return split if limit is None or limit >= len(split) else balanced_subset(split, limit, seed)


def _check_names(
    tables: Mapping[str, Any], source: str | Path, train_split: str, test_split: str, test_share: float | None
) -> None:
    found = ", ".join(tables) or "none"
    if test_share is not None and train_split not in tables:
        raise DataError(f"{source} has no split {train_split!r} to hold test images out of; splits: {found}")
    if test_share is None and test_split not in tables:
        raise DataError(
            f"{source} has no split {test_split!r}; splits: {found}; name the one to measure on with test_split=… "
            "(--test-split), or hold out a part of the training images with test_share=0.2 (--test-share)"
        )
    if test_share is None and train_split == test_split:
        raise DataError(f"{test_split!r} cannot be both the training and the test split; splits: {found}")


def _tables(source: str | Path) -> Mapping[str, Any]:
    datasets = _library()
    path = Path(source).expanduser()
    if path.is_dir():
        return _local(datasets, path)
    if isinstance(source, Path) or str(source).startswith((".", "/", "~")):
        raise DataError(f"there is no folder {str(source)!r}; give a folder, or a hub id such as uoft-cs/cifar10")
    return _from_hub(datasets, str(source))


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingBackendError(
            "data sets are read with the datasets library, which is not installed; pip install 'pah-opt[data]'"
        ) from error
    return datasets


def _local(datasets: Any, path: Path) -> Mapping[str, Any]:
    _check_saved_splits(path)
    try:
        with _quiet(datasets):
            if (path / "dataset_dict.json").exists():
                return _named(datasets.load_from_disk(str(path)))
            return _named(datasets.load_dataset(str(path)))
    except Exception as error:  # each reader behind datasets (arrow, pillow, json) raises its own
        raise DataError(
            f"the images in {str(path)!r} cannot be read ({_reason(error)}); it should hold parquet files as the hub "
            "stores them, or train/ and test/ with a folder of images for each class"
        ) from error


def _check_saved_splits(path: Path) -> None:
    """Name a saved split without images: ``datasets.load_from_disk`` fails on its missing files with an IndexError."""
    for state in sorted(path.glob("*/state.json")):
        try:
            files = json.loads(state.read_text(encoding="utf-8")).get("_data_files")
        except (OSError, ValueError, AttributeError):
            continue  # damaged; reading it says how
        if files == []:
            raise DataError(f"{path}:{state.parent.name} is empty; save the data set with images in every split")


def _from_hub(datasets: Any, name: str) -> Mapping[str, Any]:
    try:
        with _quiet(datasets):
            return _named(datasets.load_dataset(name))
    except Exception as error:  # hub, network and every reader behind them raise their own
        raise DataError(
            f"the data set {name!r} cannot be loaded from the hub ({_reason(error)}); check the name and the network, "
            "or download it elsewhere and give its local folder instead"
        ) from error


def _named(found: Any) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise DataError(f"it holds one unnamed {type(found).__name__}, and named splits are needed")
    return found


def _reason(error: BaseException) -> str:
    """Say what went wrong at the root: the datasets library wraps the real cause more than once."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Keep the library's progress bars from anything but a terminal, and give the setting back."""
    import sys

    shown = datasets.is_progress_bar_enabled() if hasattr(datasets, "is_progress_bar_enabled") else True
    if sys.stderr.isatty() or not shown:
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def split_names(source: str | Path) -> Sequence[str]:
    """Return the names of a source's splits.

    Raises:
        DataError: it cannot be found or read.
        MissingBackendError: the datasets library is not installed.
    """
    return DIGITS_SPLITS if is_digits(source) else tuple(_tables(source))
