"""What a search is of: images that decide and images that steps may use, and a digest of the model."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from pah_opt.data import calibration_split, validation_split
from pah_opt.errors import DataError, SearchError
from pah_opt.measure.tensors import held_tensors

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.search.budget import Budget
    from pah_opt.splits import Data, Split

MOST_VALIDATION = 0.3
"""Largest share of the training images that decides instead of training."""


def cut(data: Data, validation_images: int, seed: int) -> tuple[Split, Split]:
    """Cut the training images into those that steps may use and those that decide, the latter in balanced order.

    Raises:
        DataError: there are no training images, or too few.
    """
    if data.train is None:
        raise DataError(
            "a search decides on validation images, which are cut from the training images, and there are none; give "
            "pah_opt.Data(test=..., train=...)"
        )
    share = min(MOST_VALIDATION, validation_images / len(data.train))
    training, validation = validation_split(data.train, share, seed)
    return training, calibration_split(validation, len(validation), seed)


def check_enough(validation: Split, budget: Budget) -> None:
    """See that there are images enough to know whether a drop keeps its limit.

    Raises:
        SearchError: there are too few; no recipe could be known to keep it.
    """
    if len(validation) < budget.fewest_images:
        raise SearchError(
            f"{len(validation)} validation images cannot show with confidence {budget.confidence:g} that no more than "
            f"{budget.top1_drop_pp:g} pp are lost; it takes {budget.fewest_images} or more (validation_images, at most "
            f"{MOST_VALIDATION:.0%} of the training images), a larger top1_drop_pp or a lower confidence"
        )


def model_digest(model: nn.Module) -> str:
    """Return a digest of every tensor a model holds."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for tensor in held_tensors(model):
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def device_name(device: torch.device) -> str:
    """Return what latencies depend on: ``cpu``, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
