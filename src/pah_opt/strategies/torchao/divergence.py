"""How far a model's logits moved from those of another, over calibration images."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


class Divergence(NamedTuple):
    """What changed in the logits.

    Args:
        kl: mean Kullback-Leibler divergence of the class probabilities from the reference's, in nats.
        mse: mean squared error of the logits over the reference's mean square.
        top1_drop_pp: accuracy lost, in percentage points (negative when gained).
    """

    kl: float
    mse: float
    top1_drop_pp: float


def divergence(reference: Sequence[Tensor], logits: Sequence[Tensor], labels: Sequence[Tensor]) -> Divergence:
    """Compare logits with a reference, batch by batch.

    Args:
        reference: ``(batch, classes)`` each.
        logits: likewise.
        labels: ``(batch,)`` each.
    """
    before, after, wanted = torch.cat(list(reference)), torch.cat(list(logits)), torch.cat(list(labels))
    log_before, log_after = before.log_softmax(dim=1), after.log_softmax(dim=1)
    kl = torch.nn.functional.kl_div(log_after, log_before, log_target=True, reduction="batchmean")
    mse = (after - before).square().mean() / before.square().mean().clamp_min(torch.finfo(torch.float64).tiny)
    right = [float((found.argmax(dim=1) == wanted).double().mean()) for found in (before, after)]
    return Divergence(float(kl), float(mse), 100.0 * (right[0] - right[1]))
