"""Loss and accuracy on images that are not trained on, in one process or shared by several."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from pah_opt.adapt.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.layout import ModelAdapter
    from pah_opt.splits import Batch, Split


class Score(NamedTuple):
    """Mean cross-entropy, and the share of images classified correctly (0 to 1)."""

    loss: float
    accuracy: float


@torch.inference_mode()
def evaluate(
    model: nn.Module, split: Split, adapter: ModelAdapter, *, batch_size: int = 64, processes: Processes | None = None
) -> Score:
    """Classify every image of ``split``, in ``eval`` mode; the model's modes are left in ``eval``.

    Args:
        model: a classifier, on the device of ``processes``.
        split: labelled images.
        adapter: takes logits out of outputs.
        batch_size: images per forward pass.
        processes: who shares the images; this process alone by default.
    """
    processes = processes or Processes(next(model.parameters()).device, "no")
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64, device="cpu")
    for pixels, labels in _own_batches(split, batch_size, processes):
        with processes.autocast():
            logits = adapter.logits(model(pixels.to(processes.device))).float().cpu()
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        sums += torch.stack([loss.double(), (logits.argmax(dim=1) == labels).sum().double()])
    total = processes.sum(sums.to(processes.device)).tolist()
    return Score(total[0] / len(split), total[1] / len(split))


def _own_batches(split: Split, batch_size: int, processes: Processes) -> Iterable[Batch]:
    """Return this process's part of the images: nothing where there are fewer images than processes."""
    if processes.count == 1:
        return split.batches(batch_size)
    rows = range(processes.rank, len(split), processes.count)
    return split.subset(rows).batches(batch_size) if rows else ()
