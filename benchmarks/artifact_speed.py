"""How fast artifacts are written and read beside bare safetensors, in how much memory, and how small, on ViT-B.

Both ways take turns on the very same bytes: the entries of the artifact's own weights file. Saving an artifact also
hashes, describes and flushes to the disk; loading one also compares every checksum, builds the model and fills it.
Bare loading is ``load_file`` and one copy of each tensor, because ``load_file`` alone reads nothing: it maps the file.

    python benchmarks/artifact_speed.py

Writes ``benchmarks/results/artifact_speed.json``; exit status 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

import pah_opt
from pah_opt.artifact import Artifact
from pah_opt.artifact.examples import make_examples
from pah_opt.artifact.structure import adapter_named
from pah_opt.environment import installed_version
from pah_opt.measure.rounds import pair_ratio
from pah_opt.measure.tensors import tensor_bytes
from pah_opt.models import load_model
from pah_opt.registry import default_registry

if TYPE_CHECKING:
    from collections.abc import Callable

SPEED_LIMIT = 0.6
"""Saving and loading must reach this share of bare safetensors' speed."""
MEMORY_LIMIT = 1.3
"""Peak memory on top of what was there before, as a multiple of the artifact's tensors."""
RESULTS = Path(__file__).parent / "results" / "artifact_speed.json"

INT8 = {"use": "torchao", "with": {"scheme": "int8-dynamic"}}
HALF = {"use": "structured-pruning", "with": {"heads": 0.5, "mlp": 0.5}}
RECIPES: dict[str, tuple[float, list[dict[str, Any]]]] = {
    "int8": (88, [INT8]),
    "int4": (48, [{"use": "torchao", "with": {"scheme": "int4-weight-only", "group_size": 64}}]),
    "50 % zeros, fp32": (185, [{"use": "magnitude-pruning", "with": {"sparsity": 0.5}}]),
    "90 % zeros, fp32": (50, [{"use": "magnitude-pruning", "with": {"sparsity": 0.9}}]),
    "half the width, int8": (45, [HALF, INT8]),
    "90 % zeros, int8": (22, [{"use": "magnitude-pruning", "with": {"sparsity": 0.9}}, INT8]),
}
"""Largest size in MB (10⁶ bytes), and the steps."""


def dense_artifact() -> Artifact:
    """Return ViT-B for ten classes with random weights, with stored examples, as the pipeline would leave it."""
    model = load_model("google/vit-base-patch16-224", weights="random").model
    model.classifier = torch.nn.Linear(model.classifier.in_features, 10)
    adapter = adapter_named("hf-vit", default_registry())
    model = adapter.prepare(model.eval())
    recipe = pah_opt.Recipe(steps=[pah_opt.Step.of("nothing")])
    return Artifact(model, recipe, (), "hf-vit", weights_origin="random", examples=make_examples(model, adapter))


def made(dense: Artifact, steps: list[dict[str, Any]]) -> Artifact:
    artifact = pah_opt.apply(dense.model, pah_opt.Recipe.model_validate({"steps": steps}), weights_origin="random")
    return replace(artifact, examples=make_examples(artifact.model, adapter_named("hf-vit", default_registry())))


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def bare_save(entries: dict[str, torch.Tensor], path: Path) -> None:
    save_file(entries, path)
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def speed(artifact: Artifact, folder: Path, rounds: int) -> dict[str, Any]:
    """Time both ways of saving and of loading in turn."""
    saved, bare = folder / "artifact", folder / "bare.safetensors"
    artifact.save(saved, overwrite=True)
    entries = {name: tensor.clone() for name, tensor in load_file(saved / "model.safetensors").items()}
    bare_save(entries, bare)
    calls: dict[str, Callable[[], Any]] = {
        "bare_save": lambda: save_file(entries, bare),
        "bare_save_flushed": lambda: bare_save(entries, bare),
        "save": lambda: artifact.save(saved, overwrite=True),
        "bare_load_mapped": lambda: load_file(bare),
        "bare_load": lambda: {name: tensor.clone() for name, tensor in load_file(bare).items()},
        "load": lambda: pah_opt.load(saved),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name in sorted(calls, reverse=number % 2 == 1):
            seconds = timed(calls[name])
            if number > 0:  # the first round warms up
                times[name].append(seconds)
    ratios = {
        "save_speed_x": pair_ratio(times["bare_save"], times["save"]).value,
        "save_speed_flushed_x": pair_ratio(times["bare_save_flushed"], times["save"]).value,
        "load_speed_x": pair_ratio(times["bare_load"], times["load"]).value,
    }
    return {
        "file_mb": round((saved / "model.safetensors").stat().st_size / 1e6, 2),
        "median_ms": {name: round(1000 * statistics.median(found), 1) for name, found in times.items()},
        **{name: round(value, 3) for name, value in ratios.items()},
        "limit_x": SPEED_LIMIT,
        "passed": min(ratios["save_speed_flushed_x"], ratios["load_speed_x"]) >= SPEED_LIMIT,
    }


PEAK = """
import sys, torch
from pathlib import Path
import pah_opt
torch.set_num_threads(1)
def memory(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field)) * 1024
def peak_over(call):
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # start VmHWM anew
    result = call()
    return memory("VmHWM") - before, result
pah_opt.load(sys.argv[2])  # imports everything
loading, artifact = peak_over(lambda: pah_opt.load(sys.argv[1]))
for parameter in artifact.model.parameters():  # what was mapped becomes memory of its own
    parameter.requires_grad_(False)
saving, _ = peak_over(lambda: artifact.save(sys.argv[3]))
print(loading, saving)
"""


def memory(artifact: Artifact, small: Path, folder: Path) -> dict[str, Any]:
    """Return the peak memory of loading, and of saving again, in a process of its own."""
    saved = artifact.save(folder / "artifact", overwrite=True)
    with tempfile.TemporaryDirectory(dir=folder) as again:
        command = [sys.executable, "-W", "ignore", "-c", PEAK, str(saved), str(small), f"{again}/again"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    loading, saving = map(int, done.stdout.split())
    tensors = tensor_bytes(artifact.model)
    # Saving needs the model itself and what is added to it; loading begins with nothing.
    load_x, save_x = loading / tensors, 1 + saving / tensors
    return {
        "tensors_mb": round(tensors / 1e6, 1), "load_peak_x": round(load_x, 3), "save_peak_x": round(save_x, 3),
        "limit_x": MEMORY_LIMIT, "passed": max(load_x, save_x) <= MEMORY_LIMIT,
    }  # fmt: skip


def size(artifact: Artifact, folder: Path, limit_mb: float) -> dict[str, Any]:
    """Return the bytes of everything an artifact is made of, compressed and not; either may keep the limit."""
    sizes = {}
    for name, compress in (("mb", False), ("mb_zstd", True)):
        saved = artifact.save(folder / "artifact", overwrite=True, compress=compress)
        sizes[name] = round(sum(path.stat().st_size for path in saved.iterdir()) / 1e6, 2)
    return {**sizes, "limit_mb": limit_mb, "passed": min(sizes.values()) <= limit_mb}


def machine() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(), "cpus": os.cpu_count(), "platform": platform.machine(),
        **{name: installed_version(name) for name in ("torch", "safetensors", "transformers", "torchao", "pah-opt")},
    }  # fmt: skip


def run(rounds: int, folder: Path) -> dict[str, Any]:
    from pah_opt.testing import tiny_vit

    dense = dense_artifact()
    small = replace(dense, model=tiny_vit(), examples=None).save(folder / "small")
    results: dict[str, Any] = {"model": "ViT-B/16 at 224 px, 10 classes, random weights", "machine": machine()}
    results["speed"], results["memory"], results["size"] = {}, {}, {}
    for name, (limit, steps) in {"fp32": (350.0, []), **RECIPES}.items():
        artifact = made(dense, steps) if steps else dense
        results["size"][name] = size(artifact, folder, limit)
        results["speed"][name] = speed(artifact, folder, rounds)
        results["memory"][name] = memory(artifact, small, folder)
        print(name, json.dumps({part: results[part][name] for part in ("size", "speed", "memory")}), flush=True)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = run(options.rounds, Path(folder))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    judged = [result["passed"] for part in ("speed", "memory", "size") for result in results[part].values()]
    return 0 if all(judged) else 1


if __name__ == "__main__":
    raise SystemExit(main())
