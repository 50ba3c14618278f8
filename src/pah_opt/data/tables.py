"""The tables of a source, split by split, through the datasets library or straight from a folder of images."""

from __future__ import annotations

import glob
import json
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pah_opt.data.folder_checks import check_classes, check_metadata
from pah_opt.data.image_folder import ImageFolder
from pah_opt.errors import DataError, MissingBackendError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping


@dataclass(frozen=True)
class Tables:
    """What a source holds.

    Args:
        splits: a ``datasets.Dataset`` for each split.
        files: the files that a split is read from, where they are known.
    """

    splits: Mapping[str, Any]
    files: Mapping[str, Collection[str]] = field(default_factory=dict)

    def check_apart(self, names: Iterable[str], source: str | Path) -> None:
        """Check that no file is read twice by the splits ``names``.

        Raises:
            DataError: one is; names it.
        """
        seen: dict[str, str] = {}
        for split in names:
            for file in self.files.get(split, ()):
                if file in seen:
                    raise DataError(
                        f"{file} of {source} would be read twice, in {seen[file]!r} and in {split!r}: what is trained "
                        "on would be measured on; leave it in one, and name no folder or file below a split's after "
                        "another split"
                    )
                seen[file] = split


def tables_of(source: str | Path) -> Tables:
    """Find what a source holds.

    Args:
        source: a local folder, or a hub id.

    Raises:
        DataError: it cannot be found or read.
        MissingBackendError: the datasets library is not installed.
    """
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


def _local(datasets: Any, path: Path) -> Tables:
    _check_saved_splits(path)
    try:
        return _read_folder(datasets, path)
    except DataError:
        raise
    except Exception as error:  # each reader behind datasets (arrow, pillow, json) raises its own
        raise DataError(
            f"the images in {str(path)!r} cannot be read ({_reason(error)}); it should hold parquet files as the hub "
            "stores them, or train/ and test/ with a folder of images for each class"
        ) from error


def _read_folder(datasets: Any, path: Path) -> Tables:
    if (path / "dataset_dict.json").exists():
        with _quiet(datasets):
            return Tables(datasets.load_from_disk(str(path)))
    images = None if _names_its_files(path) else ImageFolder.found_in(path, _image_endings())
    if images is None:
        return _loaded(datasets, str(path), _patterns(path))
    check_metadata(images)
    if not any(map(images.metadata, images.splits)):
        return _labelled_by_folders(datasets, images)
    return _loaded(datasets, str(path), _patterns_of(images) if images.in_split_folders else _patterns(path))


def _image_endings() -> frozenset[str]:
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder as Reader

    return frozenset(Reader.EXTENSIONS)


def _labelled_by_folders(datasets: Any, images: ImageFolder) -> Tables:
    """Make tables of a folder of images: datasets looks for the names of splits in classes' names too."""
    check_classes(images)
    features = datasets.Features({
        "image": datasets.Image(), "label": datasets.ClassLabel(names=list(images.class_names)),
    })  # fmt: skip
    tables = {}
    for split in images.splits:
        paths, names = zip(*images.labelled(split), strict=True)
        tables[split] = datasets.Dataset.from_dict({"image": list(paths), "label": list(names)}, features=features)
    return Tables(tables, {split: images.files(split) for split in images.splits})


def _names_its_files(path: Path) -> bool:
    """Say whether a data card lists which files belong to which split."""
    cards = (card for name in ("README.md", ".huggingface.yaml") if (card := path / name).is_file())
    return any(re.search(r"^configs:", card.read_text("utf-8", "replace"), re.MULTILINE) for card in cards)


def _patterns_of(images: ImageFolder) -> dict[str, list[str]]:
    return {split: [f"{glob.escape(folder)}/**" for folder in images.split_folders(split)] for split in images.splits}


def _patterns(path: Path) -> dict[str, list[str]] | None:
    """Return patterns of a folder whose own name would be taken for one; datasets finds those of others."""
    root = str(path.resolve())
    if not glob.has_magic(root):
        return None
    from datasets.data_files import get_data_patterns

    root = glob.escape(root)
    return {str(split): [f"{root}/{one}" for one in found] for split, found in get_data_patterns(root).items()}


def _loaded(datasets: Any, name: str, patterns: dict[str, list[str]] | None = None) -> Tables:
    with _quiet(datasets):
        builder = datasets.load_dataset_builder(name, data_files=patterns)
        builder.download_and_prepare()
        splits = builder.as_dataset()
    return Tables(splits, {str(split): files for split, files in (builder.config.data_files or {}).items()})


def _check_saved_splits(path: Path) -> None:
    """Refuse a single table, and name a split without images: ``load_from_disk`` fails on that with an IndexError."""
    if (path / "state.json").exists():
        raise DataError(f"{path} holds one saved table, and named splits are needed; save a DatasetDict")
    for state in sorted(path.glob("*/state.json")):
        try:
            files = json.loads(state.read_text(encoding="utf-8")).get("_data_files")
        except (OSError, ValueError, AttributeError):
            continue  # damaged; reading it says how
        if files == []:
            raise DataError(f"{path}:{state.parent.name} is empty; save the data set with images in every split")


def _from_hub(datasets: Any, name: str) -> Tables:
    try:
        return _loaded(datasets, name)
    except Exception as error:  # hub, network and every reader behind them raise their own
        raise DataError(
            f"the data set {name!r} cannot be loaded from the hub ({_reason(error)}); check the name and the network, "
            "or download it elsewhere and give its local folder instead"
        ) from error


def _reason(error: BaseException) -> str:
    """Say what went wrong at the root: the datasets library wraps the real cause more than once."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Keep the library's progress bars from anything but a terminal, and give the setting back."""
    shown = datasets.is_progress_bar_enabled() if hasattr(datasets, "is_progress_bar_enabled") else True
    if sys.stderr.isatty() or not shown:
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
