"""Load labelled images from the hub, or from a local folder, through the datasets library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from pah_opt.data.checks import check_several_classes, check_trained_classes
from pah_opt.data.columns import Columns
from pah_opt.data.digits import DIGITS_SPLITS, digits_data, is_digits
from pah_opt.data.preprocess import as_processor
from pah_opt.data.sampling import balanced_subset, validation_split
from pah_opt.data.splits import CACHE_BYTES, ImageSplit
from pah_opt.data.tables import tables_of
from pah_opt.errors import DataError
from pah_opt.splits import Data, Split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

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
            ``save_to_disk``, or with a folder of images for each class (``train/cat/1.png``, ``test/cat/2.png``; the
            outermost folder named after a split is the split's, so that a class may be called ``train`` too); or
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
    found = tables_of(source)
    tables = found.splits
    _check_names(tables, source, names.train_split, names.test_split, names.test_share)
    read = (names.train_split, names.test_split) if names.test_share is None else (names.train_split,)
    found.check_apart(read, source)
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


def split_names(source: str | Path) -> Sequence[str]:
    """Return the names of a source's splits.

    Raises:
        DataError: it cannot be found or read.
        MissingBackendError: the datasets library is not installed.
    """
    return DIGITS_SPLITS if is_digits(source) else tuple(tables_of(source).splits)
