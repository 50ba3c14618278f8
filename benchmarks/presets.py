"""Presets (or other recipes) on a real model: accuracy, bytes and speed beside the dense one, each compared by itself.

Resumable: a preset that is in the results already, with the same recipe, is not run again; each keeps its
conditions. A preset that cannot run here (a GPU is missing, say) is left out with its reason. The documentation's page
of presets and ``pah-opt presets`` show the results.

    python benchmarks/presets.py --model DENSE_FOLDER --data CIFAR10_FOLDER
    python benchmarks/presets.py ... '{name: tome-50, steps: [{use: tome, with: {keep: 0.5}}]}'   # any other recipe
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import pah_opt
from pah_opt.errors import PahOptError
from pah_opt.measure.environment import cpu_model
from pah_opt.measure.settings import MeasureSettings
from pah_opt.progress import default_progress
from pah_opt.registry import default_registry
from pah_opt.report.figures import figure
from pah_opt.report.files import write
from pah_opt.storage import stored_bytes
from pah_opt.workflow import Source

if TYPE_CHECKING:
    from pah_opt import Recipe
    from pah_opt.report import Report

RESULTS = Path(__file__).parents[1] / "src" / "pah_opt" / "presets" / "measured.json"
FIGURES = ("top1", "top1_delta_pp", "latency_p50_ms", "speedup_p50_x", "throughput_x")


def measured(source: Source, recipe: Recipe, batches: tuple[int, ...], calibration: int) -> dict[str, Any]:
    """Make a preset's model and compare it with the dense one."""
    started = time.perf_counter()
    artifact = pah_opt.apply(
        source.model, recipe, source.data, calibration_images=calibration, on_collapse="ignore",
        progress=default_progress(),
    )  # fmt: skip
    made_s = time.perf_counter() - started
    settings = MeasureSettings.quick(batch_sizes=batches, groups={"accuracy", "latency", "throughput"})
    models = {"dense": source.model, recipe.name: artifact}
    report = pah_opt.compare(models, source.data, settings=settings, progress=default_progress())
    torch.compiler.reset()
    return {"made_s": round(made_s, 1), **figures_of(report), "artifact_bytes": stored_bytes(artifact.model)}


def figures_of(report: Report) -> dict[str, Any]:
    """Return the figures of the second model of a report, and the interval of its change of top-1."""
    model = report.models[-1]
    found = {name: figure(name).find(model).value for name in FIGURES}
    return {**found, "top1_ci95_pp": model.accuracy.top1_ci95_pp, "images": model.provenance.n_images}


def main() -> None:
    """Run the presets that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("recipes", nargs="*", default=list(default_registry().presets), metavar="RECIPE")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--train-limit", type=int, default=4000)
    parser.add_argument("--test-limit", type=int, default=1000)
    parser.add_argument("--calibration", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    source = Source.load(
        options.model, options.data, device=options.device, train_limit=options.train_limit,
        test_limit=options.test_limit,
    )  # fmt: skip
    rows: dict[str, Any] = json.loads(options.results.read_text())["presets"] if options.results.exists() else {}
    for recipe in map(default_registry().recipe, options.recipes):
        name = recipe.name
        if rows.get(name, {}).get("recipe_sha256") == recipe.sha256:
            continue
        try:
            found = measured(source, recipe, tuple(options.batches), options.calibration)
        except PahOptError as error:
            print(f"{name}: left out: {error}", flush=True)
            continue
        rows[name] = {"recipe_sha256": recipe.sha256, "conditions": conditions(options), **found}
        print(f"{name}: {rows[name]}", flush=True)
        write(options.results, json.dumps({"presets": rows}, indent=1) + "\n")


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    """Return what a row was measured under; each row has its own, as they may be measured on several machines."""
    return {
        "model": Path(options.model).name, "data": Path(options.data).name, "train_images": options.train_limit,
        "calibration_images": options.calibration, "batches": options.batches, "device": options.device,
        "cpu": cpu_model(), "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(), "torch": torch.__version__,
    }  # fmt: skip


if __name__ == "__main__":
    main()
