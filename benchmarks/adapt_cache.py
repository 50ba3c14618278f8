"""Training the last layers without cached hidden states of the frozen ones and with them, in float32 and bfloat16.

python benchmarks/adapt_cache.py --model ../shared/data/dinov2-small --data ../shared/data/cifar10 --out FILE.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from pah_opt.adapt.adaptation import adapt
from pah_opt.data import load_data
from pah_opt.measure.environment import cpu_model
from pah_opt.models import load_model


def timed(model: torch.nn.Module, data: Any, *, cache: bool, options: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    result = adapt(model, data, "last-layers", cache=cache, **options)
    total = time.perf_counter() - start
    epochs = [epoch.seconds for epoch in result.result.history]
    return {
        "cache": cache,
        "mixed_precision": options["mixed_precision"],
        "seconds_per_epoch": sum(epochs) / len(epochs),
        "seconds_before_training": result.seconds - sum(epochs),
        "seconds_in_all": total,
        "test_accuracy": result.test.accuracy,
        "test_loss": result.test.loss,
        "last_loss": result.result.losses[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--train-limit", type=int, default=320)
    parser.add_argument("--test-limit", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--last-blocks", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    loaded = load_model(given.model, device=given.device)
    data = load_data(given.data, loaded.processor, train_limit=given.train_limit, test_limit=given.test_limit)
    options = {"epochs": given.epochs, "last_blocks": given.last_blocks, "validation": 0.0, "batch_size": 32}
    ways = [(cache, precision) for precision in ("no", "bf16") for cache in (False, True)]
    rows = [
        timed(loaded.model, data, cache=cache, options={**options, "mixed_precision": precision})
        for cache, precision in ways
    ]
    report = {
        "model": Path(given.model).name, "device": given.device, "threads": torch.get_num_threads(),
        "cpu": cpu_model(), "images": given.train_limit, **options, "runs": rows,
        "epoch_speedup_x": [rows[0]["seconds_per_epoch"] / row["seconds_per_epoch"] for row in rows],
    }  # fmt: skip
    text = json.dumps(report, indent=2)
    print(text)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
