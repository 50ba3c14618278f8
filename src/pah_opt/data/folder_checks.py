"""What a folder of images must be like, so that no class goes missing and none is another's: refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from pah_opt.data.image_folder import ImageFolder, Placed


def check_classes(images: ImageFolder) -> None:
    """Check that each image is in a class folder, and each class folder one of its own with images in it.

    Raises:
        DataError: it is not so; names the first file or folder.
    """
    _check_archives(images)
    _check_depths(images)
    _check_filled(images)
    _check_apart(images)
    if len(images.class_names) < 2:
        raise DataError(
            f"{images.root} has one class folder only ({images.class_names[0]}); give at least two class folders in "
            "each split (train/cat, train/dog)"
        )


def check_metadata(images: ImageFolder) -> None:
    """Check that tables beside the images describe all splits or none.

    Raises:
        DataError: some splits have a table and others none.
    """
    described = [split for split in images.splits if images.metadata(split)]
    plain = [split for split in images.splits if split not in described]
    if described and plain:
        raise DataError(
            f"{images.root}: {images.metadata(described[0])[0]} is a table of what the images of {described[0]} are, "
            f"and there is none for {', '.join(plain)}; give each split one (columns file_name and label), or move it "
            "away: then the class folders are the labels"
        )


def _check_archives(images: ImageFolder) -> None:
    for place in images.placed:
        for file in place.folder.files:
            if file.lower().endswith(".zip"):
                raise DataError(
                    f"{images.root}: {place.folder.named(file)} is an archive among image files, and what is in it "
                    "would be left out; unpack it, or move it away"
                )


def _check_depths(images: ImageFolder) -> None:
    filled = [place for place in images.placed if place.images]
    if not images.class_depth:
        raise DataError(_no_class_folder(images.root, filled[0]))
    usual = next(place for place in filled if len(place.below) == images.class_depth)
    stray = next((place for place in filled if len(place.below) != images.class_depth), None)
    if stray is not None:
        raise DataError(
            f"{images.root}: the image {_first(stray)} lies at another depth than most, whose class is the folder that "
            f"they are in (such as {_first(usual)}); move it into a class folder, or away"
        )


def _no_class_folder(root: Path, place: Placed) -> str:
    problem = f"{root}: the image {_first(place)} is in no class folder"
    if not place.depth:
        return f"{problem}; give train/CLASS/… and test/CLASS/…, with at least two class folders"
    split = "/".join(place.folder.parts)
    return (
        f"{problem}: {split} is the folder of the split {place.split}; give {split}/CLASS/…, or where {split} is a "
        "class itself, put all class folders into one named train"
    )


def _check_filled(images: ImageFolder) -> None:
    empty = [p for p in images.placed if len(p.below) == images.class_depth and not p.images]
    if empty:
        raise DataError(
            f"{images.root}: the class folder {'/'.join(empty[0].folder.parts)} has no image in it that can be read, "
            "so that a class would go missing; add images (.png, .jpg, …), or remove the folder"
        )


def _check_apart(images: ImageFolder) -> None:
    """A link makes two classes of one folder: each image would be right as either."""
    seen: dict[tuple[str, Path], str] = {}
    for place in images.placed:
        if place.images:
            name = "/".join(place.folder.parts)
            other = seen.setdefault((place.split, place.folder.real), name)
            if other != name:
                raise DataError(
                    f"{images.root}: {other} and {name} are one folder by a link, so that its images would be of two "
                    "classes; remove the link, or let it lead to images of its own"
                )


def _first(place: Placed) -> str:
    return place.folder.named(place.images[0])
