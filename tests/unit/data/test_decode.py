from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pah_opt.data.decode import decode
from pah_opt.errors import DataError, MissingBackendError

from .conftest import MakeImage


def pixels(source: object, channels: int = 3) -> np.ndarray:
    return np.asarray(decode(source, channels, "image 3 of cats"))


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_bytes_path_array_and_pil_image_give_the_same_pixels(make_image: MakeImage, tmp_path: Path) -> None:
    content = make_image()
    path = tmp_path / "a.png"
    path.write_bytes(content)
    image = Image.open(path)
    expected = pixels(content)
    for source in (path, str(path), image, expected):
        np.testing.assert_array_equal(pixels(source), expected)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA", "RGBA"])
def test_every_8_bit_mode_becomes_rgb(mode: str) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    content = saved(Image.new("RGB", (4, 4), (200, 200, 200)).convert(mode), kind)
    assert pixels(content).shape == (4, 4, 3)


def test_grey_becomes_three_equal_channels() -> None:
    found = pixels(saved(Image.new("L", (2, 2), 77)))
    assert (found == 77).all()


def test_rgb_becomes_one_channel_where_the_model_takes_one(make_image: MakeImage) -> None:
    assert pixels(make_image(), channels=1).shape == (8, 8)


def test_transparent_pixels_turn_white_instead_of_showing_the_colour_below() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    assert pixels(saved(image)).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_16_bit_grey_is_scaled_and_not_clipped_to_white() -> None:
    values = np.array([[0, 257 * 10, 65535]], dtype=np.uint16)
    assert pixels(saved(Image.fromarray(values)))[0, :, 0].tolist() == [0, 10, 255]


def test_32_bit_integers_and_floats_are_refused_by_name() -> None:
    wide = Image.fromarray(np.array([[1_000_000]], dtype=np.int32))
    with pytest.raises(DataError, match=r"image 3 of cats has 32-bit integer pixels \(mode I\)"):
        pixels(saved(wide, "TIFF"))
    with pytest.raises(DataError, match="image 3 of cats has 32-bit float pixels"):
        pixels(saved(Image.new("F", (2, 2)), "TIFF"))


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert pixels(saved(image, "JPEG", exif=exif)).shape == (4, 2, 3)


@pytest.mark.parametrize("cut", [0, 20, 60])
def test_broken_image_is_named(make_image: MakeImage, cut: int) -> None:
    with pytest.raises(DataError, match="image 3 of cats cannot be decoded"):
        pixels(make_image()[:cut])


def test_what_is_no_image_is_refused_with_what_would_be() -> None:
    with pytest.raises(
        DataError, match=r"image 3 of cats: a float64 array of shape \(2, 2\) is not an image; give a PIL"
    ):
        pixels(np.zeros((2, 2)))
    with pytest.raises(DataError, match="a int is not an image"):
        pixels(5)


def test_missing_pillow_names_the_extra(monkeypatch: pytest.MonkeyPatch, make_image: MakeImage) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingBackendError, match=r"pip install 'pah-opt\[data\]'"):
        decode(make_image(), 3, "image 3 of cats")
