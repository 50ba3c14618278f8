from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from pah_opt import Split
from pah_opt.data import ImageSplit, TensorSplit
from pah_opt.errors import DataError

from .conftest import MakeImage

NAMES = ("cat", "dog")


class Counting(list[bytes]):
    """Counts how often an image is read."""

    reads = 0

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        return super().__getitem__(index)


def images(make_image: MakeImage, count: int = 6) -> Counting:
    return Counting(make_image(value) for value in range(count))


def tensors(count: int = 6) -> TensorSplit:
    return TensorSplit(torch.arange(count * 12.0).reshape(count, 3, 2, 2), torch.arange(count) % 2, NAMES, "numbers")


@pytest.fixture(params=["tensors", "images"])
def split(request: pytest.FixtureRequest, make_image: MakeImage, processor: Any) -> Split:
    if request.param == "tensors":
        return tensors()
    return ImageSplit(images(make_image), [0, 1, 0, 1, 0, 1], NAMES, processor, "pictures")


def all_pixels(split: Split, size: int = 4, **options: Any) -> torch.Tensor:
    return torch.cat([batch.pixel_values for batch in split.batches(size, **options)])


def test_both_kinds_are_splits(split: Split) -> None:
    assert isinstance(split, Split)
    assert len(split) == 6
    assert split.class_names == NAMES


def test_batches_cover_every_image_once_and_in_order(split: Split) -> None:
    batches = list(split.batches(4))
    assert [len(batch.labels) for batch in batches] == [4, 2]
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0, 1, 0, 1, 0, 1]
    assert all(batch.pixel_values.dtype == torch.float32 and batch.labels.dtype == torch.int64 for batch in batches)


def test_shuffling_depends_on_the_seed_alone(split: Split) -> None:
    first, again, other = (all_pixels(split, shuffle_seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first.flatten(1).sum(1).sort().values, all_pixels(split).flatten(1).sum(1).sort().values)


def test_images_do_not_depend_on_the_batch_size(split: Split) -> None:
    assert torch.equal(all_pixels(split, 1), all_pixels(split, 6))


def test_subset_keeps_images_and_labels_together(split: Split) -> None:
    part = split.subset([5, 0])
    assert torch.equal(all_pixels(part), all_pixels(split)[[5, 0]])
    assert next(part.batches(2)).labels.tolist() == [1, 0]
    assert torch.equal(all_pixels(part.subset([1])), all_pixels(split)[[0]])


@pytest.mark.parametrize("index", [-1, 6])
def test_index_outside_is_named(split: Split, index: int) -> None:
    with pytest.raises(DataError, match=rf"has 6 images; index {index} is outside 0 to 5"):
        split.subset([0, index])


def test_batch_size_below_one_is_refused(split: Split) -> None:
    with pytest.raises(DataError, match="batch_size is 0"):
        next(split.batches(0))


def test_resized_gives_the_size_and_keeps_the_labels(split: Split) -> None:
    other = split.resized(4, 6)
    assert all_pixels(other).shape == (6, 3, 4, 6)
    assert torch.cat([batch.labels for batch in other.batches(6)]).tolist() == [0, 1, 0, 1, 0, 1]
    assert other.resized(4, 6) is other


def test_fingerprint_changes_with_order_size_and_content(split: Split) -> None:
    seen = {split.fingerprint, split.subset([1, 0, 2, 3, 4, 5]).fingerprint, split.resized(4, 4).fingerprint}
    seen.add(split.subset([0, 1]).fingerprint)
    assert len(seen) == 4
    assert split.subset(range(6)).fingerprint == split.fingerprint


def test_fingerprint_changes_with_a_label(make_image: MakeImage, processor: Any) -> None:
    one, other = (ImageSplit(images(make_image), labels, NAMES, processor) for labels in ([0] * 6, [0] * 5 + [1]))
    assert one.fingerprint != other.fingerprint


def test_preprocessing_is_the_processors(make_image: MakeImage, processor: Any) -> None:
    from pah_opt.data.decode import decode

    split = ImageSplit([make_image()], [0], NAMES, processor)
    expected = processor(images=[decode(make_image(), 3, "it")], return_tensors="pt")["pixel_values"]
    assert torch.equal(all_pixels(split), expected)


def test_images_are_read_once_while_memory_lasts(make_image: MakeImage, processor: Any) -> None:
    stored = images(make_image)
    split = ImageSplit(stored, [0, 1] * 3, NAMES, processor)
    all_pixels(split)
    all_pixels(split.subset([0, 1]))
    assert stored.reads == 6


def test_memory_is_bounded_and_does_not_change_the_pixels(make_image: MakeImage, processor: Any) -> None:
    stored = images(make_image)
    one_image = 3 * 8 * 8 * 4
    split = ImageSplit(stored, [0, 1] * 3, NAMES, processor, cache_bytes=2 * one_image)
    first, again = all_pixels(split), all_pixels(split)
    assert torch.equal(first, again)
    assert stored.reads == 6 + 4


def test_nothing_is_read_before_it_is_needed(make_image: MakeImage, processor: Any) -> None:
    stored = images(make_image)
    ImageSplit(stored, [0, 1] * 3, NAMES, processor).subset([1, 2]).resized(4, 4)
    assert stored.reads == 0


def test_broken_image_in_the_middle_is_named_by_its_index(make_image: MakeImage, processor: Any) -> None:
    stored = images(make_image)
    stored[4] = stored[4][:30]
    split = ImageSplit(stored, [0, 1] * 3, NAMES, processor, "pictures").subset([0, 4])
    assert len(all_pixels(split.subset([0]))) == 1
    with pytest.raises(DataError, match="image 4 of pictures cannot be decoded"):
        all_pixels(split)


def test_images_of_varying_size_are_refused_with_the_remedy(make_image: MakeImage) -> None:
    loose = BitImageProcessorPil(do_resize=False, do_center_crop=False)
    split = ImageSplit([make_image(0), make_image(0, size=9)], [0, 1], NAMES, loose, "mixed")
    with pytest.raises(DataError, match=r"images of mixed have different shapes.*set do_center_crop"):
        all_pixels(split)


def test_one_channel_processor_gets_grey_images(make_image: MakeImage) -> None:
    from transformers import ViTImageProcessorPil

    grey = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])
    assert all_pixels(ImageSplit([make_image()], [0], NAMES, grey)).shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(2, 3, 4), r"shape \(2, 3, 4\)"),
        (torch.zeros(0, 3, 4, 4), "is empty"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "torch.uint8; give a floating-point tensor"),
        (torch.tensor([0.0, float("nan")]).reshape(2, 1, 1, 1), "image 1 of it holds NaN or infinity"),
        ("pictures", "pixels of it are str"),
    ],
)
def test_unusable_pixels_are_refused(pixels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TensorSplit(pixels, torch.tensor([0, 1]), NAMES, "it")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0], r"2 images and labels of shape \(1,\)"),
        ([0, 2], "label 2 of image 1 of it is outside 0 to 1"),
        ([0, -1], "-1 marks a split whose labels are not public"),
        ([0.0, 1.0], "labels of it are torch.float32"),
        ([True, False], "labels of it are torch.bool"),
    ],
)
def test_unusable_labels_are_refused(labels: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TensorSplit(torch.zeros(2, 1, 1, 1), torch.tensor(labels), NAMES, "it")


@pytest.mark.parametrize(
    ("names", "message"), [(("cat",), "has 1 class "), ((), "has 0 classes"), (("a", "a"), "'a' more")]
)
def test_unusable_classes_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TensorSplit(torch.zeros(1, 1, 1, 1), torch.tensor([0]), names, "it")


def test_refusal_of_the_processor_names_the_images(make_image: MakeImage, processor: Any) -> None:
    class Refusing:
        to_dict = processor.to_dict

        def __call__(self, images: Any) -> Any:
            raise ValueError("no such resampling")

    split = ImageSplit(images(make_image), [0, 1] * 3, NAMES, Refusing(), "pictures")
    with pytest.raises(DataError, match="the image processor refuses images 0 to 5 of pictures: no such resampling"):
        all_pixels(split, 6)


def test_fingerprint_covers_paths_arrays_and_pil_images(make_image: MakeImage, processor: Any, tmp_path: Any) -> None:
    import io

    import numpy as np
    from PIL import Image

    path = tmp_path / "a.png"
    path.write_bytes(make_image(1))
    decoded = Image.open(io.BytesIO(make_image(1)))
    stored = [make_image(1), path, decoded, np.asarray(decoded)]
    splits = [ImageSplit([image], [0], NAMES, processor, "it") for image in stored]
    assert splits[0].fingerprint == splits[1].fingerprint, "a file counts by its content"
    assert len({split.fingerprint for split in splits}) == 3
