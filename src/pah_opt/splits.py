"""Labelled images as strategies and measurements see them: batches of preprocessed pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor


class Batch(NamedTuple):
    """Preprocessed images and their labels.

    Args:
        pixel_values: float32, ``(batch, channels, height, width)``, normalised as the model's processor says.
        labels: int64, ``(batch,)``.
    """

    pixel_values: Tensor
    labels: Tensor


@runtime_checkable
class Split(Protocol):
    """A fixed, ordered set of labelled images, preprocessed for one model.

    Args:
        name: where it comes from, such as ``uoft-cs/cifar10:train[:512]``.
        class_names: names of the classes; a label is an index into them.
    """

    name: str
    class_names: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """Changes when an image, a label, their order, or the preprocessing changes; may be computed on first use."""

    def __len__(self) -> int:
        """Return the number of images."""

    def batches(self, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        """Yield every image once, in order or shuffled by ``shuffle_seed``; the last batch may be smaller."""

    def subset(self, indices: Sequence[int]) -> Split:
        """Return the images at ``indices``, in that order."""

    def resized(self, height: int, width: int) -> Split:
        """Return the same images preprocessed to another input size, for a model whose input size was changed."""


class Data(NamedTuple):
    """Everything a recipe may look at, already preprocessed for the model; the test images are never trained on.

    Args:
        test: held-out images; used for measuring only.
        train: images that training and calibration may use; None when there are none.
    """

    test: Split
    train: Split | None = None
