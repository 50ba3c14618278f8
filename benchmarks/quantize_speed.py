"""How fast the ``torchao`` step is beside a bare ``quantize_``, and how fast the quantized ViT-B then runs on the CPU.

Both ways take turns on copies of one ViT-B with random weights, so that a machine whose speed drifts slows both.

    python benchmarks/quantize_speed.py

Writes ``benchmarks/results/quantize_speed.json``; exit status 1 where the step takes more than 1.1 times as long.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pah_opt.environment import Environment, installed_version
from pah_opt.measure.rounds import pair_ratio
from pah_opt.models import find_adapter, load_model
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.optimizer import Context
from pah_opt.strategies.torchao import Torchao, TorchaoConfig, backend

if TYPE_CHECKING:
    from collections.abc import Callable

    Change = Callable[[nn.Module], nn.Module]

LIMIT_X = 1.1
RESULTS = Path(__file__).parent / "results" / "quantize_speed.json"


def ways(model: nn.Module, scheme: str) -> dict[str, Change]:
    """Return the two ways to quantize the linear layers of the blocks."""
    ao = backend.load("torchao.quantization")
    kinds = {"int8-dynamic": ao.Int8DynamicActivationInt8WeightConfig, "int8-weight-only": ao.Int8WeightOnlyConfig}
    bare_config = kinds[scheme](set_inductor_config=False)
    context = Context(find_adapter(model, pah_opt_model_adapters()), Environment())
    step, config = Torchao(), TorchaoConfig(scheme=scheme)

    def bare(twin: nn.Module) -> nn.Module:
        ao.quantize_(twin, bare_config, filter_fn=lambda m, path: isinstance(m, nn.Linear) and path != "classifier")
        return twin

    return {"quantize_": bare, "pah_opt": lambda twin: step.apply(twin, config, context)}


def timed(call: Callable[[Any], Any], argument: Any) -> float:
    started = time.perf_counter()
    call(argument)
    return time.perf_counter() - started


def quantizing(model: nn.Module, scheme: str, rounds: int) -> dict[str, Any]:
    """Time both ways in turn, each on a fresh copy; the order changes from round to round."""
    both = ways(model, scheme)
    times: dict[str, list[float]] = {name: [] for name in both}
    for index in range(rounds + 1):
        for name in sorted(both, reverse=index % 2 == 1):
            twin = copy.deepcopy(model)
            seconds = timed(both[name], twin)
            if index > 0:  # the first round warms up
                times[name].append(seconds)
    medians = {f"{name}_median_s": round(statistics.median(found), 4) for name, found in times.items()}
    ratio = pair_ratio(times["pah_opt"], times["quantize_"])
    interval = (
        None if ratio.interval is None else [round(edge, 3) for edge in (ratio.interval.low, ratio.interval.high)]
    )
    return {
        "scheme": scheme, "rounds": rounds, **medians, "ratio_x": round(ratio.value, 3), "ratio_interval_x": interval,
        "limit_x": LIMIT_X, "passed": ratio.value <= LIMIT_X,
    }  # fmt: skip


@torch.inference_mode()
def running(model: nn.Module, batch: int, rounds: int) -> dict[str, Any]:
    """Time forward passes of the float and the quantized model, eager and compiled, taking turns."""
    quantized = ways(model, "int8-dynamic")["pah_opt"](copy.deepcopy(model))
    candidates: dict[str, Callable[[torch.Tensor], Any]] = {
        "fp32_eager": model,
        "fp32_compiled": torch.compile(copy.deepcopy(model)),
        "int8_dynamic_eager": quantized,
        "int8_dynamic_compiled": torch.compile(copy.deepcopy(quantized)),
    }
    pixels = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    first_s = {name: timed(candidate, pixels) for name, candidate in candidates.items()}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            times[name].append(timed(candidate, pixels))
    pairs = {name: pair_ratio(times["fp32_eager"], found).value for name, found in times.items()}
    return {
        "batch": batch, "rounds": rounds,
        "p50_ms": {name: round(1000 * statistics.median(found), 1) for name, found in times.items()},
        "first_call_s": {name: round(seconds, 2) for name, seconds in first_s.items()},
        "speedup_over_fp32_eager_x": {name: round(ratio, 3) for name, ratio in pairs.items()},
    }  # fmt: skip


def machine() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "platform": platform.machine(),
        **{name: installed_version(name) for name in ("torch", "torchao", "transformers", "pah-opt")},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--no-inference", action="store_true", help="only time quantizing")
    options = parser.parse_args()
    model = load_model("google/vit-base-patch16-224", weights="random").model
    results: dict[str, Any] = {
        "model": "ViT-B/16 at 224 px, random weights",
        "machine": machine(),
        "quantizing": [quantizing(model, scheme, options.rounds) for scheme in ("int8-dynamic", "int8-weight-only")],
    }
    if not options.no_inference:
        results["inference"] = running(model, options.batch, options.rounds)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    return 0 if all(result["passed"] for result in results["quantizing"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
