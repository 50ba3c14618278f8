"""See what goes into linear layers on calibration images: a sample of rows, and each channel's range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pah_opt.errors import DataError, UnsupportedModelError
from pah_opt.models.calibration import calibration_batches, watching_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pah_opt.layout import Layout
    from pah_opt.progress import Progress
    from pah_opt.splits import Split

SAMPLE_ROWS = 512
"""Rows kept of each layer's inputs: enough to compare ways of rounding, little memory (170 MB for a ViT-B)."""


@dataclass
class Seen:
    """What was seen of a layer's inputs.

    Args:
        rows: a random sample of input vectors, float32, ``(at most SAMPLE_ROWS, in)``.
        low, high: least and greatest value of each channel over all inputs, ``(in,)``.
        ndim: dimensions that the inputs have.
    """

    rows: Tensor
    low: Tensor
    high: Tensor
    ndim: int

    def add(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """Take in another batch."""
        self.rows = torch.cat((self.rows, rows))
        self.low = torch.minimum(self.low, low)
        self.high = torch.maximum(self.high, high)


class _Watcher:
    """Gathers one Seen per layer."""

    def __init__(self, rows_per_batch: int, seed: int) -> None:
        self.found: dict[str, Seen] = {}
        self._rows = rows_per_batch
        self._generator = torch.Generator().manual_seed(seed)

    def see(self, path: str, inputs: Tensor) -> None:
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        order = torch.randperm(len(rows), generator=self._generator, device="cpu")
        picked = rows[order[: self._rows].to(rows.device)]
        low, high = torch.aminmax(rows, dim=0)
        if path in self.found:
            self.found[path].add(picked, low, high)
        else:
            self.found[path] = Seen(picked, low, high, inputs.ndim)


@torch.no_grad()
def observe(
    model: nn.Module,
    layout: Layout,
    layers: Mapping[str, nn.Module],
    split: Split,
    *,
    batch_size: int,
    seed: int,
    progress: Progress,
) -> dict[str, Seen]:
    """Run calibration images through a model and watch what goes into some of its layers.

    Args:
        model: in ``eval`` mode.
        layout: of ``model``.
        layers: what to watch, by path.
        split: calibration images.
        batch_size: images per forward pass.
        seed: of the choice of rows.
        progress: shows progress.

    Raises:
        DataError: images do not fit or hold NaN, or a layer's inputs are not finite.
        UnsupportedModelError: a layer did not run.
    """
    batches = math.ceil(len(split) / batch_size)
    watcher = _Watcher(math.ceil(SAMPLE_ROWS / batches), seed)
    pixels = calibration_batches(split, layout, batch_size, next(model.parameters()))
    with watching_inputs(layers, watcher.see):
        for batch in progress.track(pixels, "calibrating", total=batches):
            model(batch)
    return {path: _checked(path, watcher.found.get(path)) for path in layers}


def _checked(path: str, seen: Seen | None) -> Seen:
    if seen is None:
        raise UnsupportedModelError(
            f"{path} did not run in the forward pass, so its inputs cannot be observed; skip it"
        )
    if not (torch.isfinite(seen.low).all() and torch.isfinite(seen.high).all()):
        raise DataError(f"inputs of {path} are not finite on the calibration images; check the model's weights")
    return seen
