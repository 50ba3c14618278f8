"""Choose images by class: seeded, deterministic, disjoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.data.checks import labels_of
from pah_opt.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from pah_opt.splits import Split


def balanced_order(labels: Tensor, seed: int) -> list[int]:
    """Return all indices so that any first part is as balanced over the classes as it can be.

    >>> import torch
    >>> order = balanced_order(torch.tensor([0, 0, 0, 1, 1, 2]), seed=0)
    >>> sorted(torch.tensor([0, 0, 0, 1, 1, 2])[order[:3]].tolist())
    [0, 1, 2]
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator, device="cpu")
    by_class = [shuffled[labels[shuffled] == label] for label in sorted(set(labels.tolist()))]
    turns = torch.cat([torch.arange(len(members), device="cpu") for members in by_class])
    members = torch.cat(by_class)
    return [int(index) for index in members[turns.argsort(stable=True)]]


def balanced_subset(split: Split, size: int, seed: int) -> Split:
    """Return ``size`` images with as many of each class as possible, in their original order.

    Raises:
        DataError: ``size`` is below 1, or above the number of images.
    """
    _check_size(size, split)
    return split.subset(sorted(balanced_order(labels_of(split), seed)[:size]))


def calibration_split(train: Split, size: int, seed: int) -> Split:
    """Return ``size`` training images to observe activations on, as many of each class as possible, interleaved.

    Raises:
        DataError: ``size`` is below 1, or above the number of images.
    """
    _check_size(size, train)
    return train.subset(balanced_order(labels_of(train), seed)[:size])


def validation_split(train: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Cut a validation split out of training images, the same share of each class.

    Args:
        train: training images.
        share: of the images that go to validation, between 0 and 1.
        seed: chooses the images.

    Returns:
        The remaining training images and the validation images; disjoint, each in its original order.

    Raises:
        DataError: ``share`` is not between 0 and 1, or leaves one of the two without images.
    """
    if not 0.0 < share < 1.0:
        raise DataError(f"the validation share is {share}; it must be above 0 and below 1")
    held_out = _stratified(labels_of(train), share, seed)
    if not held_out or len(held_out) == len(train):
        raise DataError(
            f"{train.name} has {len(train)} images; a share of {share} leaves nothing "
            f"{'for validation' if not held_out else 'to train on'}"
        )
    kept = sorted(set(range(len(train))) - set(held_out))
    return train.subset(kept), train.subset(held_out)


def _stratified(labels: Tensor, share: float, seed: int) -> list[int]:
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed), device="cpu")
    chosen: list[int] = []
    for label in sorted(set(labels.tolist())):
        members = shuffled[labels[shuffled] == label]
        # A class with one image stays in training; any other gives at least one.
        count = min(max(1, round(share * len(members))), len(members) - 1)
        chosen += members[:count].tolist()
    return sorted(chosen)


def _check_size(size: int, split: Split) -> None:
    if not 1 <= size <= len(split):
        raise DataError(f"{size} images are asked of {split.name}, which has {len(split)}; ask for 1 to {len(split)}")
