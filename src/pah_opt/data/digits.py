"""Real images without a download: the handwritten digits that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pah_opt.data.sampling import validation_split
from pah_opt.data.splits import ImageSplit
from pah_opt.errors import DataError, MissingBackendError
from pah_opt.models.quiet import quiet_imports
from pah_opt.splits import Data

if TYPE_CHECKING:
    from collections.abc import Sequence

DIGITS = "digits"
"""Where a hub id or a folder can be named, the images (or the model) that need no download."""
DIGITS_SPLITS = ("train", "test")
DIGITS_MEAN = 0.3053
DIGITS_STD = 0.3761
"""Mean and standard deviation of the pixels, scaled to 0 … 1."""

TEST_SHARE = 0.25


def is_digits(source: str | Path) -> bool:
    """Tell whether a name means :data:`DIGITS`; a folder that is called so comes first."""
    return source == DIGITS and not Path(source).exists()


def digits_data(image_size: int = 8, seed: int = 0, processor: Any = None) -> Data:
    """Return scikit-learn's 1,797 handwritten digits, a quarter held out for testing.

    Args:
        image_size: height and width in pixels; the originals have 8.
        seed: chooses the images that are held out, the same share of each digit.
        processor: of another model that is to see them; by default :func:`digits_processor` at that size.

    Returns:
        Data with 1,347 training and 450 test images of three equal channels, and the classes ``0`` … ``9``.

    Raises:
        DataError: ``image_size`` is below 1.
        MissingBackendError: scikit-learn, pillow or transformers' image processing is not installed.

    References:
        E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """
    images, labels = _digits()
    names = tuple(str(digit) for digit in range(10))
    whole = ImageSplit(images, labels, names, processor or digits_processor(image_size), "sklearn-digits")
    train, test = validation_split(whole, TEST_SHARE, seed)
    return Data(test=test, train=train)


def digits_processor(image_size: int = 8) -> Any:
    """Return the image processor that belongs to a model of the digits.

    Raises:
        DataError: ``image_size`` is below 1.
    """
    with quiet_imports():
        from transformers import ViTImageProcessorPil

    if image_size < 1:
        raise DataError(f"image_size is {image_size}; it must be at least 1")
    return ViTImageProcessorPil(
        size={"height": image_size, "width": image_size}, image_mean=[DIGITS_MEAN] * 3, image_std=[DIGITS_STD] * 3
    )


def _digits() -> tuple[Sequence[Any], Sequence[int]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingBackendError(
            "the digits come with scikit-learn, which is not installed; pip install 'pah-opt[demo]'"
        ) from error
    bunch = load_digits()
    images = (bunch.images * (255.0 / 16.0)).round().astype(np.uint8)
    return list(images), bunch.target.tolist()
