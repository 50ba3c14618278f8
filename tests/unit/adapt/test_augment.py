from __future__ import annotations

import torch

from pah_opt.adapt import Augmentation
from pah_opt.adapt.augment import augmented, mixed, random_flip, random_shift
from pah_opt.adapt.isolation import restored_randomness, seed_all

PIXELS = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(64) % 4


def test_nothing_asked_for_changes_nothing() -> None:
    example = augmented(PIXELS, LABELS, Augmentation(), 4)
    assert example.pixels is PIXELS
    assert example.targets is LABELS


def test_flipped_images_are_mirrored_or_untouched_and_there_are_both() -> None:
    with restored_randomness():
        seed_all(0)
        found = random_flip(PIXELS)
    same = (found == PIXELS).flatten(1).all(1)
    mirrored = (found == PIXELS.flip(-1)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 0 < int(same.sum()) < 64


def test_shifted_images_keep_their_inner_part_and_are_filled_with_zeros() -> None:
    ones = torch.ones(64, 1, 8, 8)
    with restored_randomness():
        seed_all(0)
        found = random_shift(ones, 0.25)
    assert found.shape == ones.shape
    assert (found[:, :, 2:6, 2:6] == 1).all()
    assert ((found == 0) | (found == 1)).all()
    assert len({int(image.sum()) for image in found}) > 5


def test_mixing_blends_images_and_labels_in_the_same_proportion() -> None:
    pixels = torch.eye(4).repeat(16, 1).reshape(64, 4, 1, 1)  # the image is its own label
    with restored_randomness():
        seed_all(1)
        example = mixed(pixels, LABELS, 1.0, 4)
    torch.testing.assert_close(example.pixels.flatten(1), example.targets)
    torch.testing.assert_close(example.targets.sum(1), torch.ones(64))
    assert not torch.equal(example.pixels, pixels)
    assert torch.equal(example.labels, LABELS)


def test_same_seed_draws_the_same_changes() -> None:
    how = Augmentation(flip=True, crop=0.125, mixup=0.4)
    with restored_randomness():
        seed_all(0, 7)
        one = augmented(PIXELS, LABELS, how, 4)
        seed_all(0, 7)
        same = augmented(PIXELS, LABELS, how, 4)
        seed_all(0, 8)
        other = augmented(PIXELS, LABELS, how, 4)
    assert torch.equal(one.pixels, same.pixels)
    assert not torch.equal(one.pixels, other.pixels)
