"""Run by test_processes.py, which kills it: train, with a checkpoint after each update, and hash the weights."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from pah_opt.adapt import Augmentation, TrainSettings, fit
from pah_opt.adapt.snapshots import digest_of
from pah_opt.data import TensorSplit
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.testing.models import tiny_vit


def main(folder: Path) -> None:
    """Train, slowly enough to be caught in the middle."""
    model = tiny_vit(classes=3, image=16, hidden_dropout_prob=0.1)
    pixels = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    train = TensorSplit(pixels, torch.arange(24) % 3, ("a", "b", "c"))
    settings = TrainSettings(epochs=25, lr=1e-3, batch_size=8, augmentation=Augmentation(flip=True, mixup=0.2))
    adapter = find_adapter(model, default_registry().adapters)
    fit(model, train, settings, adapter=adapter, validation=train, checkpoint=folder / "state", checkpoint_steps=1)
    (folder / "weights").write_text(digest_of(model.state_dict()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
