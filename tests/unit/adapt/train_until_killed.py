"""Run by test_processes.py, which kills it: train, with a checkpoint after each update, and hash the weights.

The second argument says how: by ``fit``, or by ``adapt`` within a single epoch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from pah_opt.adapt import Augmentation, TrainSettings, fit
from pah_opt.adapt.adaptation import adapt
from pah_opt.adapt.snapshots import digest_of
from pah_opt.data import TensorSplit
from pah_opt.models import find_adapter
from pah_opt.progress import Progress
from pah_opt.registry import default_registry
from pah_opt.splits import Data
from pah_opt.testing.models import tiny_vit


def images(count: int) -> TensorSplit:
    """Noise of three classes."""
    pixels = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return TensorSplit(pixels, torch.arange(count) % 3, ("a", "b", "c"))


def by_fit(folder: Path) -> None:
    """Train, slowly enough to be caught in the middle."""
    model = tiny_vit(classes=3, image=16, hidden_dropout_prob=0.1)
    train = images(24)
    settings = TrainSettings(epochs=10, lr=1e-3, batch_size=8, augmentation=Augmentation(flip=True, mixup=0.2))
    adapter = find_adapter(model, default_registry().adapters)
    fit(model, train, settings, adapter=adapter, validation=train, checkpoint=folder / "state", checkpoint_steps=1)
    (folder / "weights").write_text(digest_of(model.state_dict()))


def by_adapt(folder: Path) -> None:
    """Adapt the last block in one epoch of many updates: a checkpoint after the epoch would come too late."""
    adapted = adapt(
        tiny_vit(classes=5, image=16, hidden_dropout_prob=0.1), Data(test=images(6), train=images(120)), "last-layers",
        last_blocks=1, epochs=1, batch_size=3, augmentation=Augmentation(mixup=0.2), cache=folder / "cache",
        checkpoint=folder / "state", checkpoint_seconds=0.0, progress=Progress(),
    )  # fmt: skip
    (folder / "weights").write_text(digest_of(adapted.model.state_dict()))


if __name__ == "__main__":
    {"fit": by_fit, "adapt": by_adapt}[sys.argv[2]](Path(sys.argv[1]))
