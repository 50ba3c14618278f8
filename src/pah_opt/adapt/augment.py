"""Random changes of batches of preprocessed images, drawn from torch's global generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from pah_opt.adapt.settings import Augmentation


class Example(NamedTuple):
    """A batch as the loss sees it.

    Args:
        pixels: ``(batch, channels, height, width)``.
        targets: class indices, int64 ``(batch,)``, or probabilities, float ``(batch, classes)``.
        labels: the original class indices, int64 ``(batch,)``.
    """

    pixels: Tensor
    targets: Tensor
    labels: Tensor


def augmented(pixels: Tensor, labels: Tensor, how: Augmentation, num_classes: int) -> Example:
    """Return a changed batch: flipped, then shifted, then blended, as far as ``how`` asks for it."""
    if how.flip:
        pixels = random_flip(pixels)
    if how.crop:
        pixels = random_shift(pixels, how.crop)
    if how.mixup:
        return mixed(pixels, labels, how.mixup, num_classes)
    return Example(pixels, labels, labels)


def random_flip(pixels: Tensor) -> Tensor:
    """Mirror about half of the images left to right."""
    chosen = torch.rand(len(pixels)).to(pixels.device) < 0.5
    return torch.where(chosen[:, None, None, None], pixels.flip(-1), pixels)


def random_shift(pixels: Tensor, share: float) -> Tensor:
    """Shift each image by up to ``share`` of its size; what comes in is zero (the mean, after normalisation).

    The same as padding by that share on all sides and cropping at random.
    """
    height, width = pixels.shape[-2:]
    down, right = round(share * height), round(share * width)
    padded = functional.pad(pixels, (right, right, down, down))
    tops = torch.randint(0, 2 * down + 1, (len(pixels),)).tolist()
    lefts = torch.randint(0, 2 * right + 1, (len(pixels),)).tolist()
    crops = [
        image[:, top : top + height, left : left + width] for image, top, left in zip(padded, tops, lefts, strict=True)
    ]
    return torch.stack(crops)


def mixed(pixels: Tensor, labels: Tensor, alpha: float, num_classes: int) -> Example:
    """Blend each image with another of the batch, and the labels in the same proportion.

    References:
        H. Zhang et al.: mixup, https://arxiv.org/abs/1710.09412.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    partner = torch.randperm(len(pixels)).to(pixels.device)
    answers = functional.one_hot(labels, num_classes).to(pixels.dtype)
    return Example(pixels.lerp(pixels[partner], 1.0 - share), answers.lerp(answers[partner], 1.0 - share), labels)
