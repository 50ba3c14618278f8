"""Run by test_processes.py under ``accelerate launch``: train a tiny model and write what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from pah_opt.adapt import TrainSettings, fit
from pah_opt.adapt.adaptation import adapt
from pah_opt.adapt.processes import Processes
from pah_opt.data import TensorSplit
from pah_opt.models import find_adapter
from pah_opt.progress import Progress
from pah_opt.registry import default_registry
from pah_opt.splits import Data
from pah_opt.testing.models import tiny_dinov2


def coloured(count: int, seed: int) -> TensorSplit:
    """Noisy images whose brightest channel is their label."""
    labels = torch.arange(count) % 3
    pixels = 0.3 * torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    pixels[torch.arange(count), labels] += 1.0
    return TensorSplit(pixels, labels, ("a", "b", "c"), f"coloured-{seed}")


def main(folder: Path) -> None:
    """Train by :func:`fit` and adapt from cached states, and write losses and sums of weights."""
    model, teacher = tiny_dinov2(classes=3, image=16), tiny_dinov2(classes=3, image=16, seed=1)
    with torch.no_grad():
        model.get_submodule("dinov2.encoder.layer.0.mlp.fc1").get_parameter("weight")[:, ::2] = 0
    adapter = find_adapter(model, default_registry().adapters)
    settings = TrainSettings(
        epochs=2, lr=5e-3, batch_size=10, accumulation=2, distill=0.3, distill_features=0.1, checkpointing=True
    )
    result = fit(
        model, coloured(33, 0), settings,
        adapter=adapter, validation=coloured(13, 1), teacher=teacher, checkpoint=folder / "state",
    )  # fmt: skip
    data = Data(test=coloured(12, 2), train=coloured(40, 0))
    adapted = adapt(
        tiny_dinov2(classes=5, image=16), data, "last-layers",
        last_blocks=1, epochs=1, batch_size=8, cache=folder / "cache", progress=Progress(),
    )  # fmt: skip
    processes = Processes(torch.device("cpu"), "no")
    facts = {
        "processes": processes.count,
        "losses": result.losses,
        "validation": [epoch.validation_loss for epoch in result.history],
        "accuracy": [epoch.train_accuracy for epoch in result.history],
        "weights": [float(parameter.detach().double().abs().sum()) for parameter in model.parameters()],
        "zeros": int((model.get_submodule("dinov2.encoder.layer.0.mlp.fc1").get_parameter("weight") == 0).sum()),
        "adapted": adapted.result.losses,
        "test": adapted.test.loss,
        "attributes": sorted(vars(model)),
    }
    (folder / f"{processes.rank}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
