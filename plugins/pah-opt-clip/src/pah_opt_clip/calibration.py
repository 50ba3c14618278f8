"""The expected calibration error: how far a classifier's confidence is from how often it is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from pah_opt.metric import Figure, Metric
from pah_opt.models import logits_of

if TYPE_CHECKING:
    from pah_opt.layout import ModelAdapter
    from pah_opt.splits import Split

BINS = 15
BATCH = 32


def calibration_error(confidence: Tensor, correct: Tensor, bins: int = BINS) -> float:
    """Return the mean distance between confidence and accuracy over bins of equal width, weighted by their images.

    Args:
        confidence: probability of the predicted class, ``(images,)``, 0 to 1.
        correct: whether it is the true one, ``(images,)``.
        bins: how many.

    >>> calibration_error(torch.tensor([0.8, 0.8, 0.8, 0.8]), torch.tensor([True, True, True, False]))  # doctest: +SKIP
    0.05

    References:
        Guo et al., On calibration of modern neural networks, https://arxiv.org/abs/1706.04599, equation 3.
    """
    # Bins are open below and closed above, as in the paper.
    which = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, which, confidence.double() - correct.double())
    return float(gaps.abs().sum() / len(confidence))


class ExpectedCalibrationError(Metric):
    """Adds ``extra.ece_pct`` to every report that has test images."""

    name: ClassVar[str] = "ece_pct"
    summary: ClassVar[str] = "Expected calibration error over 15 bins: distance of confidence from accuracy."
    better: ClassVar[Literal["lower", "higher"]] = "lower"

    def measure(self, model: nn.Module, adapter: ModelAdapter | None, test: Split | None) -> Figure:
        """Classify the test images and compare confidence with accuracy."""
        if test is None:
            return Figure(None, "there are no test images")
        take = logits_of if adapter is None else adapter.logits
        like = next(each for each in model.parameters() if each.is_floating_point() and each.element_size() > 1)
        confidences, correct = [], []
        with torch.inference_mode():
            for pixels, labels in test.batches(BATCH):
                best = take(model(pixels.to(like.device, like.dtype))).float().softmax(dim=-1).max(dim=-1)
                confidences.append(best.values.cpu())
                correct.append(best.indices.cpu() == labels)
        return Figure(100.0 * calibration_error(torch.cat(confidences), torch.cat(correct)))
