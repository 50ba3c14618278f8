"""Coerce what a user has at hand (a DataLoader, a pair of tensors, …) to Data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pah_opt.data.splits import ImageSplit, TensorSplit
from pah_opt.errors import DataError
from pah_opt.splits import Data, Split

MATERIALIZED_BYTES = 2 * 1024**3
"""Most pixels that are taken from an iterable: 2 GiB, about 3,500 images of 224 px."""

ACCEPTED = (
    "give pah_opt.Data, a Split, {'train': …, 'test': …}, a pair of tensors (pixel_values, labels), or a DataLoader of "
    "such pairs or of dicts with 'pixel_values' and 'labels'; for files use pah_opt.data.load_data"
)


def as_data(data: Any, *, class_names: tuple[str, ...] | None = None) -> Data:
    """Return user data as :class:`~pah_opt.splits.Data`; a single set of images is taken as the test images.

    Args:
        data: Data, a Split, a mapping with ``test`` and perhaps ``train``, a pair of tensors, or an iterable (such as
            a DataLoader) of ``(pixel_values, labels)`` or of dicts with these keys. Iterables are read once, up to
            2 GiB of pixels.
        class_names: names of the classes; taken from the largest label where neither this nor ``data`` gives them.

    Raises:
        DataError: it is none of these, or images or labels cannot be used.
    """
    if isinstance(data, Data):
        test = as_split(data.test, class_names, "test")
        return _checked(Data(test, test if data.train is data.test else _train(data.train, class_names)))
    if isinstance(data, Mapping) and "test" in data:
        return as_data(Data(data["test"], data.get("train")), class_names=class_names)
    if isinstance(data, Mapping) and "train" in data:
        raise DataError(f"there are training images only, and test images are needed too; {ACCEPTED}")
    return _checked(Data(as_split(data, class_names, "test")))


def _train(train: Any, class_names: tuple[str, ...] | None) -> Split | None:
    return None if train is None else as_split(train, class_names, "train")


def _checked(data: Data) -> Data:
    for split in data:
        if split is not None and len(split) == 0:
            raise DataError(f"{split.name} is empty")
    train, test = data.train, data.test
    if train is test:
        raise DataError(f"training and test images are the same split ({test.name}); give images that are held out")
    if train is not None and train.class_names != test.class_names:
        raise DataError(
            f"training and test images have different classes: {', '.join(train.class_names)} against "
            f"{', '.join(test.class_names)}"
        )
    return data


def as_split(data: Any, class_names: tuple[str, ...] | None = None, name: str = "data") -> Split:
    """Return one set of images as a Split; see :func:`as_data` for what it takes.

    Raises:
        DataError: images or labels cannot be used.
    """
    # The concrete types first: a check against the protocol would compute a fingerprint (Python 3.10 and 3.11).
    if isinstance(data, (TensorSplit, ImageSplit, Split)):
        return data
    if _is_pair(data):
        pixels, labels = data
    elif isinstance(data, Iterable) and not isinstance(data, (str, bytes, Mapping)):
        pixels, labels = _materialized(data, name)
    else:
        raise DataError(f"a {type(data).__name__} is no set of images; {ACCEPTED}")
    names = class_names or tuple(str(index) for index in range(_largest(labels, name) + 1))
    return TensorSplit(pixels, labels, names, name)


def _is_pair(data: Any) -> bool:
    # A pair of images and labels, and not a list of two batches: labels have one dimension.
    return isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def _largest(labels: Any, name: str) -> int:
    found = torch.as_tensor(labels, device=None if isinstance(labels, Tensor) else "cpu")
    if not found.numel():
        raise DataError(f"{name} is empty")
    if found.is_floating_point():
        raise DataError(f"labels of {name} are {found.dtype}; integers are needed")
    return max(int(found.max()), 1)


def _materialized(batches: Iterable[Any], name: str) -> tuple[Tensor, Tensor]:
    pixels: list[Tensor] = []
    labels: list[Tensor] = []
    used = 0
    for index, batch in enumerate(batches):
        images, answers = _unpacked(batch, f"batch {index} of {name}")
        used += images.nbytes
        if used > MATERIALIZED_BYTES:
            raise DataError(
                f"{name} holds more than {MATERIALIZED_BYTES // 1024**3} GiB of pixels; use pah_opt.data.load_data, "
                "which reads images as they are needed, or pass fewer images"
            )
        pixels.append(images)
        labels.append(answers)
    if not pixels:
        raise DataError(f"{name} is empty: it gave no batch")
    return _joined(pixels, name), torch.cat(labels)


def _unpacked(batch: Any, where: str) -> tuple[Tensor, Tensor]:
    if isinstance(batch, Mapping):
        labels = batch.get("labels", batch.get("label"))
        batch = (batch.get("pixel_values"), labels)
    if not _is_pair(batch):
        raise DataError(f"{where} is a {type(batch).__name__} without two tensors; {ACCEPTED}")
    pixels, labels = batch
    if pixels.ndim != 4 or labels.shape != pixels.shape[:1]:
        raise DataError(
            f"{where} has pixels of shape {tuple(pixels.shape)} and labels of shape {tuple(labels.shape)}; "
            "(batch, channels, height, width) and (batch,) are needed"
        )
    return pixels.detach().cpu(), labels.detach().cpu()


def _joined(pixels: list[Tensor], name: str) -> Tensor:
    shapes = {tuple(images.shape[1:]) for images in pixels}
    if len(shapes) > 1:
        raise DataError(f"batches of {name} have images of different shapes: {', '.join(map(str, sorted(shapes)))}")
    return torch.cat(pixels)
