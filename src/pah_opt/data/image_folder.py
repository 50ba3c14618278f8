"""A folder of images, where the folders that a file lies in say its split and its class.

The outermost folder that is named after a split is the split's; a folder of the same name below it is a class.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from pah_opt.data.folder_files import Folder, folders_below
from pah_opt.data.split_words import SPLITS, split_named

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables that say what the images beside them are."""
_TABLES = (".parquet", ".arrow", ".tar")


class Placed(NamedTuple):
    """A folder that belongs to a split.

    Args:
        split: name of the split.
        depth: how many folders lie between the root and what is in the split; 0 where the root itself is the split.
        folder: the folder.
        images: names of the images in it.
    """

    split: str
    depth: int
    folder: Folder
    images: tuple[str, ...]

    @property
    def below(self) -> tuple[str, ...]:
        """Names of the folders from the split's down to this one, which is last; none for the split's own folder."""
        return self.folder.parts[self.depth :]


class LabelledImage(NamedTuple):
    """Where an image is, and the name of its class."""

    path: str
    class_name: str


@dataclass(frozen=True)
class ImageFolder:
    """What a folder of images holds.

    Args:
        root: the folder.
        placed: the folders in it that belong to a split, with images or without.
    """

    root: Path
    placed: tuple[Placed, ...]

    @classmethod
    def found_in(cls, root: Path, endings: Collection[str]) -> ImageFolder | None:
        """Look what is in a folder.

        Args:
            root: the folder.
            endings: the ends of names of images, such as ``.png``.

        Returns:
            What it holds; None where that are no image files, or tables that may have images in them.

        Raises:
            DataError: a name is that of two splits.
            OSError: it cannot be read.
        """
        folders = list(folders_below(root))
        if any(_is_table(file) for folder in folders for file in folder.files):
            return None
        images = [tuple(file for file in folder.files if _ending(file) in endings) for folder in folders]
        if not any(images):
            return None
        return cls(root, tuple(_placed(list(zip(folders, images, strict=True)))))

    @property
    def in_split_folders(self) -> bool:
        """Whether splits are told apart by folders."""
        return all(place.depth for place in self.placed)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have images."""
        return tuple(split for split in SPLITS if any(place.images for place in self.placed if place.split == split))

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The classes of all splits, in alphabetical order."""
        return tuple(sorted({place.below[-1] for place in self.placed if place.images and place.below}))

    @cached_property
    def class_depth(self) -> int:
        """How many folders a class folder lies below its split's, itself counted; 0 where there are none."""
        counts: Counter[int] = Counter()
        for place in self.placed:
            if place.below and place.images:
                counts[len(place.below)] += len(place.images)
        return max(counts, key=lambda depth: (counts[depth], -depth), default=0)

    def labelled(self, split: str) -> Sequence[LabelledImage]:
        """Return the images of a split, in the order of their paths."""
        return sorted(
            LabelledImage(str(place.folder.path / image), place.below[-1])
            for place in self.placed
            if place.split == split
            for image in place.images
        )

    def files(self, split: str) -> frozenset[str]:
        """Return which files a split is read from, links followed."""
        return frozenset(
            place.folder.real_path(image) for place in self.placed if place.split == split for image in place.images
        )

    def split_folders(self, split: str) -> tuple[str, ...]:
        """Return the paths of a split's folders."""
        found = {place.folder.parts[: place.depth] for place in self.placed if place.split == split}
        return tuple(str(self.root.absolute().joinpath(*parts)) for parts in sorted(found))

    def metadata(self, split: str) -> tuple[str, ...]:
        """Return the names of the tables that say what a split's images are."""
        return tuple(
            place.folder.named(file)
            for place in self.placed
            if place.split == split
            for file in place.folder.files
            if file in METADATA
        )


_Found = tuple[Folder, tuple[str, ...]]


def _placed(found: Sequence[_Found]) -> Iterator[Placed]:
    """Place folders by their names; where none with images is named after a split, by the images' names."""
    if any(images and _split_depth(folder.parts) for folder, images in found):
        return _by_folders(found)
    if all(split_named(image) for _, images in found for image in images):
        return _by_images(found)
    return (Placed("train", 0, folder, images) for folder, images in found)


def _by_folders(found: Sequence[_Found]) -> Iterator[Placed]:
    for folder, images in found:
        if depth := _split_depth(folder.parts):
            yield Placed(split_named(folder.parts[depth - 1]) or "", depth, folder, images)


def _by_images(found: Sequence[_Found]) -> Iterator[Placed]:
    for folder, images in found:
        for split in SPLITS:
            own = tuple(image for image in images if split_named(image) == split)
            if own or not images:
                yield Placed(split, 0, folder, own)


def _split_depth(parts: tuple[str, ...]) -> int:
    return next((depth for depth, part in enumerate(parts, start=1) if split_named(part)), 0)


def _is_table(file: str) -> bool:
    return _ending(file) in _TABLES and file not in METADATA


def _ending(file: str) -> str:
    return f".{file.rpartition('.')[2].lower()}"
