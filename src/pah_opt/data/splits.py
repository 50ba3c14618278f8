"""The two kinds of Split: preprocessed tensors, and images that are decoded and preprocessed when they are needed."""

from __future__ import annotations

import hashlib
import threading
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pah_opt.data.checks import checked_classes, checked_labels, checked_pixels
from pah_opt.data.decode import add_to_digest, decode
from pah_opt.data.prefetch import ahead, default_workers
from pah_opt.data.preprocess import as_processor, processor_channels, processor_key, resized_processor
from pah_opt.errors import DataError
from pah_opt.splits import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CACHE_BYTES = 512 * 1024**2
"""Preprocessed pixels that an :class:`ImageSplit` keeps in memory by default (about 850 images of 224 px)."""


def batch_rows(count: int, batch_size: int, shuffle_seed: int | None) -> Iterator[Tensor]:
    """Yield the rows of each batch: int64, ``(batch,)``.

    Raises:
        DataError: ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}; it must be at least 1")
    if shuffle_seed is None:
        order = torch.arange(count, device="cpu")  # whatever torch.set_default_device says: images stay there
    else:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(shuffle_seed), device="cpu")
    yield from torch.split(order, batch_size) if count else ()


def checked_rows(indices: Sequence[int], count: int, name: str) -> Tensor:
    """Return indices as a tensor.

    Raises:
        DataError: one is outside ``0 … count - 1``.
    """
    rows = torch.as_tensor(list(indices), dtype=torch.int64, device="cpu")
    outside = rows[(rows < 0) | (rows >= count)]
    if outside.numel():
        raise DataError(f"{name} has {count} images; index {int(outside[0])} is outside 0 to {count - 1}")
    return rows


class TensorSplit:
    """Images that are preprocessed already.

    Args:
        pixel_values: floating point, ``(images, channels, height, width)``, normalised as the model expects.
        labels: integers, ``(images,)``, indices into ``class_names``.
        class_names: names of the classes, at least two.
        name: where they come from.

    Raises:
        DataError: shapes, types, values or labels cannot be used.
    """

    def __init__(self, pixel_values: Tensor, labels: Tensor, class_names: Sequence[str], name: str = "tensors") -> None:
        self.name = name
        self.class_names = checked_classes(class_names, name)
        self.pixel_values = checked_pixels(pixel_values, name)
        self.labels = checked_labels(labels, len(self.pixel_values), self.class_names, name)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of pixels, labels, their order, and class names."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        digest.update(str(tuple(self.pixel_values.shape)).encode())
        for part in (self.labels, *torch.split(self.pixel_values, 256)):
            digest.update(part.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()

    def batches(self, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        """Yield every image once, in order or shuffled by ``shuffle_seed``; the last batch may be smaller."""
        for rows in batch_rows(len(self), batch_size, shuffle_seed):
            yield Batch(self.pixel_values[rows], self.labels[rows])

    def subset(self, indices: Sequence[int]) -> TensorSplit:
        """Return the images at ``indices``, in that order."""
        rows = checked_rows(indices, len(self), self.name)
        name = f"{self.name}[{len(rows)} images]"
        return TensorSplit(self.pixel_values[rows], self.labels[rows], self.class_names, name)

    def resized(self, height: int, width: int) -> TensorSplit:
        """Return the same images at another size, interpolated (bilinear, antialiased)."""
        if tuple(self.pixel_values.shape[-2:]) == (height, width):
            return self
        resize = torch.nn.functional.interpolate
        parts = [
            resize(part, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
            for part in torch.split(self.pixel_values, 256)
        ]
        return TensorSplit(torch.cat(parts), self.labels, self.class_names, self.name)


class _PixelStore:
    """Images and their preprocessing, shared by a split and its subsets; keeps pixels while its budget lasts."""

    def __init__(self, images: Sequence[Any], processor: Any, name: str, cache_bytes: int) -> None:
        self.images = images
        self.processor = processor
        self.name = name
        self.cache_bytes = cache_bytes
        self._kept: dict[int, Tensor] = {}
        self._kept_bytes = 0
        self._lock = threading.Lock()
        self._channels = processor_channels(processor)

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what stays with this process when a split is sent to another: the lock and kept pixels."""
        return {**vars(self), "_kept": {}, "_kept_bytes": 0, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """Return preprocessed images, float32 ``(rows, channels, height, width)``."""
        wanted = [row for row in dict.fromkeys(rows) if row not in self._kept]
        fresh = dict(zip(wanted, self._preprocessed(wanted), strict=True)) if wanted else {}
        pixels = [fresh[row] if row in fresh else self._kept[row] for row in rows]
        self._keep(fresh)
        return self._stacked(pixels)

    def _preprocessed(self, rows: Sequence[int]) -> Sequence[Tensor]:
        images = [decode(self.images[row], self._channels, f"image {row} of {self.name}") for row in rows]
        try:
            pixels = self.processor(images=images)["pixel_values"]
        except (ValueError, TypeError) as error:
            raise DataError(
                f"the image processor refuses images {rows[0]} to {rows[-1]} of {self.name}: {error}"
            ) from error
        return [torch.as_tensor(image, dtype=torch.float32, device="cpu") for image in pixels]

    def _stacked(self, pixels: list[Tensor]) -> Tensor:
        shapes = sorted({tuple(image.shape) for image in pixels})
        if len(shapes) > 1:
            raise DataError(
                f"after preprocessing, images of {self.name} have different shapes ({shapes[0]} and {shapes[-1]}); set "
                "do_center_crop and crop_size in the processor, or size with height and width"
            )
        return torch.stack(pixels)

    def _keep(self, fresh: dict[int, Tensor]) -> None:
        with self._lock:  # batches are prepared in threads
            for row, image in fresh.items():
                if row in self._kept or self._kept_bytes + image.nbytes > self.cache_bytes:
                    continue
                self._kept[row] = image
                self._kept_bytes += image.nbytes

    def resized(self, height: int, width: int) -> _PixelStore:
        processor = resized_processor(self.processor, height, width)
        if processor is self.processor:
            return self
        return _PixelStore(self.images, processor, self.name, self.cache_bytes)


class ImageSplit:
    """Images that are decoded and preprocessed batch by batch, ahead of time, with a bounded memory of pixels.

    Grey-scale, palette, RGBA (on white) and 16-bit images become what the processor takes; others are refused by name.

    Args:
        images: a sequence of PIL images, encoded bytes, paths or uint8 arrays; items are read when needed.
        labels: integers, one for each image, indices into ``class_names``.
        class_names: names of the classes, at least two.
        processor: the model's transformers image processor, or its hub id or folder.
        name: where they come from.
        cache_bytes: how many bytes of preprocessed pixels are kept in memory; 0 for none.

    Raises:
        DataError: labels or the processor cannot be used. A broken image raises when it is reached, by its index.
    """

    def __init__(
        self,
        images: Sequence[Any],
        labels: Sequence[int] | Tensor,
        class_names: Sequence[str],
        processor: Any,
        name: str = "images",
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.name = name
        self.class_names = checked_classes(class_names, name)
        self.labels = checked_labels(labels, len(images), self.class_names, name)
        self._store = _PixelStore(images, as_processor(processor), name, cache_bytes)
        self._rows = torch.arange(len(images), device="cpu")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def processor(self) -> Any:
        """The image processor that makes the pixels."""
        return self._store.processor

    @cached_property
    def fingerprint(self) -> str:
        """Hash of stored images, labels, their order, class names and preprocessing; read on first use."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        digest.update(processor_key(self.processor).encode())
        digest.update(self.labels.numpy().tobytes())
        for row in self._rows.tolist():
            add_to_digest(digest, self._store.images[row])
        return digest.hexdigest()

    def batches(self, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        """Yield every image once, in order or shuffled by ``shuffle_seed``; the last batch may be smaller."""
        batches = list(batch_rows(len(self), batch_size, shuffle_seed))
        if len(batches) < 2:
            yield from map(self._batch, batches)
        else:
            yield from ahead(self._batch, batches, default_workers())

    def _batch(self, rows: Tensor) -> Batch:
        return Batch(self._store.pixels(self._rows[rows].tolist()), self.labels[rows])

    def subset(self, indices: Sequence[int]) -> ImageSplit:
        """Return the images at ``indices``, in that order; kept pixels are shared with this split."""
        rows = checked_rows(indices, len(self), self.name)
        return self._like(self._store, self._rows[rows], self.labels[rows], f"{self.name}[{len(rows)} images]")

    def resized(self, height: int, width: int) -> ImageSplit:
        """Return the same images preprocessed to another input size.

        Raises:
            DataError: the processor's output size depends on the image.
        """
        store = self._store.resized(height, width)
        return self if store is self._store else self._like(store, self._rows, self.labels, self.name)

    def _like(self, store: _PixelStore, rows: Tensor, labels: Tensor, name: str) -> ImageSplit:
        split = copy(self)
        vars(split).pop("fingerprint", None)
        vars(split).update(_store=store, _rows=rows, labels=labels, name=name)
        return split
