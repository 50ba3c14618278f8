"""Run by test_ranks.py in one process and in two: prune and recover a tiny model, and write what came of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from pah_opt import Data, Recipe, Step
from pah_opt.measure.settings import MeasureSettings
from pah_opt.testing import tiny_data, tiny_vit
from pah_opt.workflow import Source, is_main, run_recipes


def main(folder: Path) -> None:
    """Apply a recipe and write sums of its weights, their zeros and the losses."""
    found = tiny_data(classes=3, image=16)
    source = Source(tiny_vit(classes=3, image=16), "tiny", "fine-tuned", Data(test=found.test, train=found.train))
    recover = Step.of("recover", epochs=2, lr=5e-3, batch_size=10, distill_features=0.1)
    recipe = Recipe(name="half", steps=(Step.of("magnitude-pruning", sparsity=0.5), recover))
    # Five images a batch, and a last one with fewer: an uneven part for each process.
    settings = MeasureSettings.quick(groups={"accuracy", "latency"}, batch_sizes=(1,), accuracy_batch=5)
    outcome = run_recipes(source, [recipe], settings=settings, shared=True, on_collapse="ignore")
    assert not outcome.failures
    made = outcome.artifacts["half"]
    weights = [parameter.detach().double() for parameter in made.model.parameters()]
    facts = {
        "accuracy": [model.accuracy.model_dump(mode="json") for model in outcome.report.models],
        "timed": [len(model.timings) for model in outcome.report.models],
        "processes": torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1,
        "main": is_main(),
        "losses": made.steps[1].achieved["losses"],
        "weights": [float(weight.abs().sum()) for weight in weights],
        "zeros": sum(int((weight == 0).sum()) for weight in weights if weight.ndim == 2),
    }
    (folder / f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
