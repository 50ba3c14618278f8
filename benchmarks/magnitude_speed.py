"""Global magnitude pruning of a ViT-B beside torch.nn.utils.prune.global_unstructured: time, memory, the same zeros.

Both work on the same random weights. Runs take turns, each on a fresh copy of the model, so that a machine whose speed
drifts slows both; the ratio is the median of the rounds' ratios, with its interval. Memory is the highest resident set
during one run in a fresh process, less what the process held just before.

    python benchmarks/magnitude_speed.py

Exit status 1 where a limit is missed: at least 3 times as fast, at most 1.2 times the model's memory on top.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils import prune as torch_prune
from transformers import ViTConfig, ViTForImageClassification

import pah_opt
from pah_opt.environment import Environment
from pah_opt.measure.rounds import pair_ratio
from pah_opt.models import find_adapter
from pah_opt.optimizer import Context
from pah_opt.registry import default_registry

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parent / "results" / "magnitude_speed.json"
SPARSITY = 0.5
LEAST_SPEEDUP, MOST_MEMORY = 3.0, 1.2
NAMES = ("pah_opt magnitude-pruning", "torch global_unstructured")


def vit_b() -> nn.Module:
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig()).eval()


def with_pah_opt(model: nn.Module) -> None:
    """Run the step as a recipe does, with its report."""
    registry = default_registry()
    optimizer = registry.optimizers["magnitude-pruning"].optimizer
    context = Context(find_adapter(model, registry.adapters), Environment())
    optimizer.apply(model, optimizer.config_type(sparsity=SPARSITY), context)


def with_torch(model: nn.Module) -> None:
    targets = [(layer, "weight") for layer in linears(model)]
    torch_prune.global_unstructured(targets, torch_prune.L1Unstructured, amount=SPARSITY)


RUNS: dict[str, Callable[[nn.Module], None]] = dict(zip(NAMES, (with_pah_opt, with_torch), strict=True))


def linears(model: nn.Module) -> list[nn.Module]:
    return [m for path, m in model.named_modules() if isinstance(m, nn.Linear) and path != "classifier"]


def seconds(run: Callable[[nn.Module], None], model: nn.Module) -> float:
    own = copy.deepcopy(model)
    started = time.perf_counter()
    run(own)
    return time.perf_counter() - started


def take_turns(model: nn.Module, rounds: int) -> dict[str, list[float]]:
    seconds(with_pah_opt, model)  # imports and the registry are not what is compared
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(rounds):
        for name, run in RUNS.items():
            times[name].append(seconds(run, model))
    return times


def same_zeros(model: nn.Module) -> bool:
    """Tell whether both set the very same weights to zero."""
    ours, theirs = copy.deepcopy(model), copy.deepcopy(model)
    with_pah_opt(ours)
    with_torch(theirs)
    pairs = zip(linears(ours), linears(theirs), strict=True)
    return all(torch.equal(a.weight == 0, b.weight_mask == 0) for a, b in pairs)


def status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def peak_on_top(name: str) -> int:
    """Return the highest resident set during one run, less the resident set before it (Linux; in a fresh process)."""
    with_pah_opt(tiny := ViTForImageClassification(ViTConfig(hidden_size=24, num_attention_heads=2)).eval())
    del tiny
    model = vit_b()
    before = status_bytes("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM, see proc(5)
    RUNS[name](model)
    return status_bytes("VmHWM:") - before


def peak_in_fresh_process(name: str) -> int:
    command = [sys.executable, __file__, "--peak", name]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(found.splitlines()[-1])


def measure(rounds: int) -> dict[str, Any]:
    model = vit_b()
    model_bytes = sum(p.nbytes for p in model.parameters())
    times = take_turns(model, rounds)
    ratio = pair_ratio(times[NAMES[1]], times[NAMES[0]])
    peaks = {name: peak_in_fresh_process(name) for name in NAMES}
    rows = [
        {"name": name, "median_s": statistics.median(times[name]), "min_s": min(times[name]), "max_s": max(times[name]),
         "peak_on_top_bytes": peaks[name], "peak_on_top_x_model": peaks[name] / model_bytes}
        for name in NAMES
    ]  # fmt: skip
    return {
        "model": "ViT-B/16, random weights", "sparsity": SPARSITY, "model_bytes": model_bytes, "rounds": rounds,
        "rows": rows, "speedup_x": ratio.value, "speedup_ci95_x": ratio.interval and list(ratio.interval),
        "same_zeros": same_zeros(model), "limits": {"speedup_x_min": LEAST_SPEEDUP, "peak_x_model_max": MOST_MEMORY},
        "passed": ratio.value >= LEAST_SPEEDUP and peaks[NAMES[0]] <= MOST_MEMORY * model_bytes,
        "env": {"torch": torch.__version__, "pah_opt": pah_opt.__version__, "threads": torch.get_num_threads(),
                "cpus": os.cpu_count(), "machine": platform.machine(), "load_1min": os.getloadavg()[0]},
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    head = ["| | median s | min s | max s | memory on top, x model |", "|---|---:|---:|---:|---:|"]
    rows = [
        f"| {r['name']} | {r['median_s']:.3f} | {r['min_s']:.3f} | {r['max_s']:.3f} | {r['peak_on_top_x_model']:.2f} |"
        for r in found["rows"]
    ]
    interval = found["speedup_ci95_x"]
    between = f" (95 %: {interval[0]:.1f} to {interval[1]:.1f})" if interval else ""
    return "\n".join(
        [*head, *rows, f"\n{found['speedup_x']:.1f} times as fast{between}; same zeros: {found['same_zeros']}"]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--peak", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak_on_top(options.peak))
        return 0
    found = measure(options.rounds)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table(found))
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
