"""Small real images, encoded as users have them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import ViTImageProcessorPil

MakeImage = Callable[..., bytes]


def encoded(value: int = 0, *, size: int = 8, mode: str = "RGB", kind: str = "PNG") -> bytes:
    """Encode an image whose pixels depend on ``value``."""
    pixels = (np.arange(size * size * 3, dtype=np.uint32).reshape(size, size, 3) * 7 + value * 31) % 256
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def make_image() -> MakeImage:
    """Encode images."""
    return encoded


@pytest.fixture
def processor() -> Any:
    """A processor that makes 8 by 8 pixels between -1 and 1."""
    return ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
