"""What goes into linear layers on calibration images, reduced to one number per input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pah_opt.errors import DataError, UnsupportedModelError
from pah_opt.models.calibration import calibration_batches, evenly_spaced, watching_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pah_opt.optimizer import Context
    from pah_opt.splits import Split
    from pah_opt.strategies.unstructured.config import Observation


class _Squares:
    """Sums of squares per input, in float64."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def see(self, path: str, inputs: Tensor) -> None:
        rows = inputs.detach().reshape(-1, inputs.shape[-1])
        squares = rows.float().square().sum(dim=0).double()
        self.totals[path] = self.totals.get(path, 0) + squares
        self.counts[path] = self.counts.get(path, 0) + len(rows)

    def rms(self, path: str) -> Tensor:
        if path not in self.totals:
            raise UnsupportedModelError(f"{path} did not run in the forward pass, so its inputs cannot be observed")
        mean = self.totals[path] / self.counts[path]
        if not torch.isfinite(mean).all():
            raise DataError(f"inputs of {path} are not finite on the calibration images; check the model's weights")
        return mean.sqrt().float()


def batch_count(split: Split | None, batch_size: int) -> int:
    """Return how many batches a split is cut into."""
    return 0 if split is None else -(-len(split) // batch_size)


@torch.no_grad()
def input_rms(
    model: nn.Module, layers: Mapping[str, nn.Linear], context: Context, seeing: Observation
) -> dict[str, Tensor]:
    """Return the root mean square of each layer's inputs over all tokens and images, ``(in_features,)``, float32.

    Raises:
        DataError: the images cannot be used, or activations are not finite.
        UnsupportedModelError: a layer did not run.
    """
    squares = _Squares()
    split = None if context.calibration is None else evenly_spaced(context.calibration, seeing.images)
    batches = calibration_batches(split, context.adapter.layout(model), seeing.batch_size, next(model.parameters()))
    with watching_inputs(layers, squares.see):
        for pixels in context.progress.track(batches, "calibrating", total=batch_count(split, seeing.batch_size)):
            model(pixels)
    return {path: squares.rms(path) for path in layers}
