"""What images and labels must be, and whether they fit a model: the classic silent failures, refused by name."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pah_opt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from pah_opt.layout import Layout
    from pah_opt.splits import Data, Split


LARGEST_PIXEL = 20.0
"""Normalised pixels are ``(pixel - mean) / std`` of values from 0 to 1: with the processors in use at most about 3, and
20 only where std is below 0.05. Pixels from 0 to 255 are beyond it in any image that is not black."""
LOOKED_AT = 8
"""Images whose pixels are looked at, evenly spaced: the first one alone may be black."""


def checked_classes(class_names: Sequence[str], name: str) -> tuple[str, ...]:
    """Return class names as a tuple.

    Raises:
        DataError: there are fewer than two, or two are the same.
    """
    names = tuple(str(class_name) for class_name in class_names)
    if len(names) < 2:
        raise DataError(
            f"{name} has {len(names)} class{'es' * (not names)} ({', '.join(names)}); a classifier needs two"
        )
    twice = sorted({class_name for class_name in names if names.count(class_name) > 1})
    if twice:
        raise DataError(f"{name} names the class {twice[0]!r} more than once; every class needs a name of its own")
    return names


def checked_pixels(pixel_values: Any, name: str) -> Tensor:
    """Return preprocessed images as float32, ``(images, channels, height, width)``.

    Raises:
        DataError: another shape or type, no images, or values that are not finite.
    """
    if not isinstance(pixel_values, Tensor) or not pixel_values.is_floating_point():
        kind = str(pixel_values.dtype) if isinstance(pixel_values, Tensor) else type(pixel_values).__name__
        raise DataError(f"pixels of {name} are {kind}; give a floating-point tensor from the model's own processor")
    if pixel_values.ndim != 4:
        raise DataError(
            f"pixels of {name} have shape {tuple(pixel_values.shape)}; (images, channels, height, width) is needed"
        )
    if not pixel_values.numel():
        raise DataError(f"{name} is empty: its pixels have shape {tuple(pixel_values.shape)}")
    finite = torch.isfinite(pixel_values).flatten(1).all(dim=1)
    if not finite.all():
        raise DataError(f"image {int((~finite).nonzero()[0])} of {name} holds NaN or infinity; check its preprocessing")
    return pixel_values.detach().float()


def checked_labels(labels: Any, count: int, class_names: Sequence[str], name: str) -> Tensor:
    """Return labels as int64, ``(count,)``.

    Raises:
        DataError: their number is not ``count``, they are not integers, or one is not an index into ``class_names``.
    """
    found = torch.as_tensor(labels, device="cpu").detach()
    if count == 0:
        raise DataError(f"{name} is empty")
    if found.shape != (count,):
        raise DataError(
            f"{name} has {count} images and labels of shape {tuple(found.shape)}; one label an image is needed"
        )
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise DataError(f"labels of {name} are {found.dtype}; integers from 0 to {len(class_names) - 1} are needed")
    outside = ((found < 0) | (found >= len(class_names))).nonzero()
    if len(outside):
        index = int(outside[0])
        raise DataError(
            f"label {int(found[index])} of image {index} of {name} is outside 0 to {len(class_names) - 1}"
            + ("; -1 marks a split whose labels are not public: use another one" if int(found[index]) == -1 else "")
        )
    return found.to(torch.int64)


def labels_of(split: Split) -> Tensor:
    """Return all labels of a split in order, int64 ``(images,)``; reads the images only of a foreign Split."""
    labels = getattr(split, "labels", None)
    if isinstance(labels, Tensor):
        return labels
    return torch.cat([batch.labels for batch in split.batches(256)])


def check_several_classes(split: Split) -> None:
    """Check that a split's images are not all of one class.

    Raises:
        DataError: they are; names the class.
    """
    found = set(labels_of(split).tolist())
    if len(found) == 1:
        raise DataError(
            f"all {len(split)} images of {split.name} are of one class ({split.class_names[found.pop()]!r}): there is "
            "nothing to tell apart, and accuracy would mean nothing; give images of at least two classes"
        )


def check_trained_classes(train: Split, test: Split) -> None:
    """Check that each class of the test images has training images.

    Raises:
        DataError: some have none; names them.
    """
    names = test.class_names
    trained = set(labels_of(train).tolist())
    missing = [names[label] for label in sorted(set(labels_of(test).tolist()) - trained)]
    if missing:
        several = len(missing) > 1
        raise DataError(
            f"{'classes' if several else 'class'} {_shortened(missing)} of {test.name} {'have' if several else 'has'} "
            f"no image in {train.name}, whose classes are {_shortened([names[label] for label in sorted(trained)])}: "
            "they could not be learned; give a class the same name in both splits, take more training images "
            "(train_limit), or leave these test images out"
        )


def training_images(data: Data) -> Split:
    """Return the training images of ``data``.

    Raises:
        DataError: there are none.
    """
    if data.train is None:
        raise DataError(f"there are no training images beside {data.test.name}; pass Data(test=…, train=…)")
    return data.train


def check_fit(split: Split, layout: Layout, *, model: nn.Module | None = None) -> None:
    """Check that a split's images and classes are what a model takes.

    Args:
        split: images and labels.
        layout: of the model.
        model: where given, the label names in its config are compared too.

    Raises:
        DataError: shapes, number of classes, or the order of class names differ; names both sides.
    """
    check_input(split, layout)
    if layout.num_classes:
        _check_classes(split, layout.num_classes)
    if model is not None:
        check_order(split, model)


def check_input(split: Split, layout: Layout) -> None:
    """Check that images are of the size and channels that a model takes, and scaled.

    Raises:
        DataError: they are not; names both sides.
    """
    count = len(split)
    if count == 0:
        raise DataError(f"{split.name} is empty")
    looked_at = split.subset(sorted({at * count // LOOKED_AT for at in range(LOOKED_AT)}))
    pixels = next(iter(looked_at.batches(LOOKED_AT))).pixel_values
    found = tuple(pixels.shape[1:])
    wanted = (layout.in_channels, *layout.image_size)
    if found != wanted:
        raise DataError(
            f"images of {split.name} have shape {found}, the model takes {wanted}; preprocess them with the model's "
            f"own processor, or use split.resized({wanted[1]}, {wanted[2]})"
        )
    largest = float(pixels.abs().max())
    if largest > LARGEST_PIXEL:
        raise DataError(
            f"images of {split.name} look unscaled: they hold values up to {largest:.0f}, and a processor normalises "
            f"to about -3 to 3 (at most {LARGEST_PIXEL:.0f} is accepted); preprocess them with the model's own "
            "processor"
        )


def _check_classes(split: Split, num_classes: int) -> None:
    names = split.class_names
    if len(names) != num_classes:
        raise DataError(
            f"{split.name} has {len(names)} classes ({_shortened(names)}), the model's head has {num_classes}: its "
            "logits would mean nothing for these labels; fit a head first (pah_opt.adapt), or use the data set the "
            "head was trained on"
        )


def check_order(split: Split, model: nn.Module) -> None:
    """Check that a split's classes come in the order of the label names in a model's config.

    Raises:
        DataError: a class that both know has two numbers; names both. Case, dashes and underscores count only where
            names differ by nothing else.
    """
    place_of = _places_in(label_names(model), split.class_names)
    for index, class_name in enumerate(split.class_names):
        place = place_of.get(class_name, index)
        if place != index:
            raise DataError(
                f"labels are out of step: class {class_name!r} is {index} in {split.name} and {place} in the model's "
                "config (id2label); reorder the labels, or fit the head again"
            )


def _places_in(names: Sequence[str], class_names: Sequence[str]) -> dict[str, int]:
    """Return where classes are among ``names``: by the name as it is, else by a spelling that one on each side has."""
    folded = _places([_spelled(name) for name in names])
    alone = _places([_spelled(class_name) for class_name in class_names])
    by_spelling = {class_names[index]: folded[spelled] for spelled, index in alone.items() if spelled in folded}
    return by_spelling | _places(names)


def _places(names: Sequence[str]) -> dict[str, int]:
    """Return the place of each name that is there once."""
    counts = Counter(names)
    return {name: place for place, name in enumerate(names) if counts[name] == 1}


def label_names(model: nn.Module) -> tuple[str, ...]:
    """Return the label names in a transformers config, in order; empty where there are none or only placeholders."""
    id2label = getattr(getattr(model, "config", None), "id2label", None) or {}
    names = tuple(str(id2label[index]) for index in sorted(id2label))
    return () if all(name.startswith("LABEL_") for name in names) else names


def _spelled(class_name: str) -> str:
    return class_name.casefold().replace("_", " ").replace("-", " ").strip()


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
