"""Find the images and the labels among the columns of a table, by their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

from pah_opt.errors import DataError


class _Sought(NamedTuple):
    """What a column is for, the option that names it, and its usual names."""

    what: str
    option: str
    usual: tuple[str, ...]

    @property
    def named(self) -> str:
        """How a user names the column, in Python and on the command line."""
        return f"{self.option}=… (--{self.option.replace('_', '-')})"


_IMAGES = _Sought("images", "image_column", ("image", "img"))
_LABELS = _Sought("labels", "label_column", ("label", "labels", "fine_label"))


class EncodedImages(Sequence[Any]):
    """One column of images of a table, read one at a time and still encoded.

    Args:
        table: a ``datasets.Dataset`` whose column is cast to ``Image(decode=False)``.
        column: its name.
        name: for messages.
    """

    def __init__(self, table: Any, column: str, name: str) -> None:
        self._table = table.select_columns([column])
        self._column = column
        self._name = name

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._table)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Return an image as encoded bytes or as the path of its file."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        stored = self._table[index][self._column]
        content = None if stored is None else stored.get("bytes") or stored.get("path")
        if content is None:
            raise DataError(f"image {index} of {self._name} is missing")
        if isinstance(content, str) and not Path(content).exists():
            raise DataError(f"image {index} of {self._name}: there is no file {content!r}")
        return content


@dataclass(frozen=True)
class Columns:
    """Which columns hold images and labels, and the classes.

    Args:
        image: name of the column of images.
        label: name of the column of labels.
        class_names: names of the classes.
        by_name: labels are stored as names, not as numbers.
    """

    image: str
    label: str
    class_names: tuple[str, ...]
    by_name: bool = False

    @classmethod
    def of(
        cls, tables: Mapping[str, Any], source: str | Path, image: str | None = None, label: str | None = None
    ) -> Columns:
        """Find the columns.

        Raises:
            DataError: there is no such column, or more than one.
        """
        table = next(iter(tables.values()))
        features = table.features
        image = image or _only(_IMAGES, _image_columns(features), features, source)
        label = label or _label_column(features, source)
        for name in (image, label):
            if name not in features:
                raise DataError(f"{source} has no column {name!r}; columns: {', '.join(features)}")
        names = getattr(features[label], "names", None)
        if names is not None:
            return cls(image, label, tuple(names))
        return cls(image, label, *_classes([table[label] for table in tables.values()]))

    def read(self, table: Any, name: str) -> tuple[EncodedImages, list[int]]:
        """Return a table's images, still encoded, and its labels.

        Raises:
            DataError: a label is missing or no class.
        """
        import datasets

        encoded = table.cast_column(self.image, datasets.Image(decode=False))
        values = list(table[self.label])
        if None in values:
            raise DataError(f"image {values.index(None)} of {name} has no label")
        if not self.by_name:
            return EncodedImages(encoded, self.image, name), values
        places = {class_name: index for index, class_name in enumerate(self.class_names)}
        return EncodedImages(encoded, self.image, name), [places[value] for value in values]


def _classes(columns: Sequence[Sequence[Any]]) -> tuple[tuple[str, ...], bool]:
    found = {value for column in columns for value in column if value is not None}
    if any(isinstance(value, str) for value in found):
        return tuple(sorted(map(str, found))), True
    return tuple(str(index) for index in range(max(found, default=-1) + 1)), False


def _image_columns(features: Mapping[str, Any]) -> list[str]:
    return [name for name, feature in features.items() if type(feature).__name__ == "Image" or _is_encoded(feature)]


def _is_encoded(feature: Any) -> bool:
    # Parquet files written without the hub's metadata store an image as a plain struct.
    return isinstance(feature, Mapping) and {"bytes", "path"} == set(feature)


def _label_columns(features: Mapping[str, Any]) -> list[str]:
    classes = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    return classes or [name for name in _LABELS.usual if name in features]


def _label_column(features: Mapping[str, Any], source: str | Path) -> str:
    found = _label_columns(features)
    if not found:
        # Of archives of images the datasets library makes labels only of several folders at one depth.
        raise DataError(
            f"{source} has images and no column of labels; columns: {', '.join(features)}; in archives of images "
            "give at least two class folders in each split, all at one depth (train/cat, train/dog), else name the "
            f"column with {_LABELS.named}"
        )
    return _only(_LABELS, found, features, source)


def _only(sought: _Sought, found: list[str], features: Mapping[str, Any], source: str | Path) -> str:
    if len(found) > 1:
        found = [name for name in sought.usual if name in found][:1] or found
    if len(found) == 1:
        return found[0]
    problem = f"several columns of {sought.what} ({', '.join(found)})" if found else f"no column of {sought.what}"
    raise DataError(f"{source} has {problem}; columns: {', '.join(features)}; name the right one with {sought.named}")
