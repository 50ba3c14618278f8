"""Turn any encoded or decoded image into an 8-bit image with the channels a model takes, without silent damage.

Three conversions are easy to get wrong: PIL clips 16-bit grey to white, dropping an alpha channel uncovers whatever
colour lies under transparent pixels, and EXIF orientation is ignored by default.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pah_opt.errors import DataError, MissingBackendError

if TYPE_CHECKING:
    import hashlib

    from PIL.Image import Image

ALLOWED = "8-bit or 16-bit grey-scale, RGB, RGBA, palette and CMYK images are"


def pillow() -> Any:
    """Import ``PIL.Image``.

    Raises:
        MissingBackendError: pillow is not installed.
    """
    try:
        import PIL.Image
    except ImportError as error:
        raise MissingBackendError(
            "images are decoded with pillow, which is not installed; pip install 'pah-opt[data]'"
        ) from error
    return PIL.Image


def decode(source: Any, channels: int, where: str) -> Image:
    """Return ``source`` as an 8-bit image with one (``L``) or three (``RGB``) channels.

    Args:
        source: a PIL image, encoded bytes, a path, or an array ``(height, width[, channels])`` of uint8.
        channels: 1 or 3.
        where: names the image in messages, such as ``image 17 of cats:train``; a path is added.

    Raises:
        DataError: it cannot be read, or its pixels have no meaning as a colour.
    """
    if isinstance(source, (str, Path)):
        where = f"{where} ({source})"
    try:
        image = _opened(source)
        image.load()
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except MissingBackendError:
        raise
    except Exception as error:  # a decoder raises anything on damaged bytes, struct.error included
        raise DataError(
            f"{where} cannot be decoded ({type(error).__name__}: {error}); replace the file or leave it out"
        ) from error
    return _with_channels(_upright(image), channels, where)


def _opened(source: Any) -> Image:
    images = pillow()
    if isinstance(source, images.Image):
        return source  # type: ignore[no-any-return]  # pillow is imported lazily
    if isinstance(source, bytes):
        return images.open(io.BytesIO(source))  # type: ignore[no-any-return]  # as above
    if isinstance(source, (str, Path)):
        # Read at once: pillow leaves the file of a broken image open.
        return images.open(io.BytesIO(Path(source).read_bytes()))  # type: ignore[no-any-return]  # as above
    if isinstance(source, np.ndarray) and source.dtype == np.uint8 and source.ndim in {2, 3}:
        return images.fromarray(source)  # type: ignore[no-any-return]  # as above
    raise DataError(f"a {_described(source)} is not an image; give a PIL image, encoded bytes, a path or a uint8 array")


def _described(source: Any) -> str:
    if isinstance(source, np.ndarray):
        return f"{source.dtype} array of shape {source.shape}"
    return type(source).__name__


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _with_channels(image: Image, channels: int, where: str) -> Image:
    target = "L" if channels == 1 else "RGB"
    if image.mode == target:
        return image
    if image.mode.startswith("I"):
        return _from_16_bit(image, where).convert(target)
    if image.mode == "F":
        raise DataError(f"{where} has 32-bit float pixels, whose range is not known; {ALLOWED} read")
    return _flattened(image).convert(target)


def _from_16_bit(image: Image, where: str) -> Image:
    values = np.asarray(image)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise DataError(f"{where} has 32-bit integer pixels (mode {image.mode}); {ALLOWED} read")
    scaled = (values.astype(np.float32) / 257.0).round().astype(np.uint8)
    return pillow().fromarray(scaled)  # type: ignore[no-any-return]  # pillow is imported lazily


def _flattened(image: Image) -> Image:
    """Composite transparent images on white, as a viewer shows them."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    white = pillow().new("RGBA", image.size, (255, 255, 255, 255))
    return pillow().alpha_composite(white, image)  # type: ignore[no-any-return]  # pillow is imported lazily


def add_to_digest(digest: hashlib._Hash, source: Any) -> None:
    """Add one image, as it is stored, to a hash."""
    payload = _stored_bytes(source)
    digest.update(len(payload).to_bytes(8, "little"))
    digest.update(payload)


def _stored_bytes(source: Any) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, (str, Path)):
        return Path(source).read_bytes()
    if isinstance(source, np.ndarray):
        return f"{source.dtype}{source.shape}".encode() + source.tobytes()
    return f"{source.mode}{source.size}".encode() + bytes(source.tobytes())
