"""ViT-B/16 at 224 px on one GPU: fp32, TF32, bf16, compiled, int8, fp8, 2:4, half width, combinations, smaller inputs.

One command; each row is written as soon as it is measured, and a row that is there already, made by the same recipe on
the same device with the same versions, is not run again. Started anew, the command goes on where it stopped.

    python benchmarks/gpu.py                       # every row, about ten minutes on one H100
    python benchmarks/gpu.py --device cpu --tiny   # the same code on a tiny model, to try it without a GPU

Weights are random unless --model names a checkpoint: speed, memory and energy do not depend on them. Every row is
measured on its own (latency at batch 1; throughput, energy, utilization at the large batch), and in turns with the
fp32 baseline for the ratios. Exit status 1 where compiled bf16 stays below 70 % of the measured bf16 matrix rate.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import ViTConfig, ViTForImageClassification

import pah_opt
from pah_opt import MeasureSettings, Recipe, Report, Step
from pah_opt.errors import PahOptError
from pah_opt.measure.candidate import Candidate
from pah_opt.measure.throughput import best_batch
from pah_opt.measure.timer import timer_for
from pah_opt.models import load_model
from pah_opt.registry import default_registry
from pah_opt.report import compare
from pah_opt.report.files import write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

RESULTS = Path(__file__).parent / "results" / "gpu"
LEAST_MFU_PCT = 70.0
BASELINE = "fp32"

BF16 = Step.of("cast", dtype="bf16")
COMPILE = Step.of("compile", dynamic=False)
GRAPHS = Step.of("compile", dynamic=False, mode="reduce-overhead")
INT8 = Step.of("torchao", scheme="int8-dynamic")
FP8 = Step.of("torchao", scheme="fp8-dynamic")
HALF = Step.of("structured-pruning", heads=0.5, mlp=0.5, align=64)
SPARSE = Step.of("semi-structured", include=["mlp"], method="magnitude", kernels="require")
SMALLER = Step.of("input-size", size=160)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: its name, and its file's.
        steps: what is done to the dense model; nothing for the baselines.
        tf32: let fp32 products run in TF32.
    """

    name: str
    steps: tuple[Step, ...] = ()
    tf32: bool = False

    @property
    def recipe(self) -> Recipe | None:
        """The steps as a recipe."""
        return Recipe(name=self.name, steps=self.steps) if self.steps else None


ROWS = (
    Row(BASELINE),
    Row("tf32", tf32=True),
    Row("bf16", (BF16,)),
    Row("bf16-compiled", (BF16, COMPILE)),
    Row("bf16-cuda-graphs", (BF16, GRAPHS)),
    Row("int8-compiled", (BF16, INT8, COMPILE)),
    Row("fp8-compiled", (BF16, FP8, COMPILE)),
    Row("sparse24-compiled", (BF16, SPARSE, COMPILE)),
    Row("half-compiled", (HALF, BF16, COMPILE)),
    Row("half-int8-compiled", (HALF, BF16, INT8, COMPILE)),
    Row("half-fp8-compiled", (HALF, BF16, FP8, COMPILE)),
    Row("160px-compiled", (SMALLER, BF16, COMPILE)),
    Row("160px-half-int8-compiled", (SMALLER, HALF, BF16, INT8, COMPILE)),
)

TINY = {
    "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256, "num_hidden_layers": 2, "num_labels": 10,
}  # fmt: skip


def dense_model(options: argparse.Namespace) -> nn.Module:
    """Make the model that every row starts from."""
    if options.model:
        return load_model(options.model, device=options.device).model.eval()
    torch.manual_seed(0)
    config = ViTConfig(**TINY) if options.tiny else ViTConfig(num_labels=1000)
    return ViTForImageClassification(config).to(options.device).eval()


def alone(batch: int, *, tiny: bool) -> MeasureSettings:
    """Settings for a row measured on its own: latency at batch 1, everything at the large batch."""
    if tiny:
        return MeasureSettings.quick(batch_sizes=(1, batch))
    return MeasureSettings(
        batch_sizes=(1, batch), min_rounds=10, max_rounds=20, latency_limit_s=4.0, throughput_s=4.0, energy_s=10.0,
        idle_s=1.0,
    )  # fmt: skip


def in_turns(batch: int, *, tiny: bool) -> MeasureSettings:
    """Settings for a row and the baseline taking turns."""
    groups = frozenset({"latency", "throughput"})
    if tiny:
        return MeasureSettings.quick(batch_sizes=(1, batch), groups=groups)
    return MeasureSettings(
        batch_sizes=(1, batch), groups=groups, min_rounds=8, max_rounds=16, latency_limit_s=2.0, throughput_s=2.0,
        block_ms=30.0,
    )  # fmt: skip


@contextmanager
def matrix_products(*, tf32: bool) -> Iterator[None]:
    """Set the precision of fp32 products for the time being."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def measure_row(row: Row, dense: nn.Module, batch: int, *, tiny: bool) -> dict[str, Any]:
    """Make and measure one row."""
    recipe = row.recipe
    subject: Any = copy.deepcopy(dense) if recipe is None else pah_opt.apply(dense, recipe)
    with matrix_products(tf32=row.tf32):
        own = compare({row.name: subject}, settings=alone(batch, tiny=tiny), weights_origin="random")
        turns = None
        if row.name != BASELINE:
            models = {BASELINE: dense, row.name: subject}
            turns = compare(models, settings=in_turns(batch, tiny=tiny), weights_origin="random").to_data()
    return {"report": own.to_data(), "turns": turns}


def identity(row: Row, batch: int, model: str) -> dict[str, Any]:
    """Return what must be the same for a row not to be measured again."""
    cuda = torch.cuda.is_available()
    return {
        "recipe_sha256": row.recipe.sha256 if row.recipe else None, "tf32": row.tf32, "batch": batch, "model": model,
        "device": torch.cuda.get_device_name() if cuda else "cpu", "torch": torch.__version__,
        "pah_opt": pah_opt.__version__,
    }  # fmt: skip


def is_done(path: Path, wanted: dict[str, Any]) -> bool:
    """Tell whether a row's file is there and was made under the same conditions."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(found.get("identity") == wanted and "report" in found)


def best_large_batch(dense: nn.Module, largest: int) -> int:
    """Return the batch at which the bf16 model has the best throughput."""
    half = Candidate.of("bf16", copy.deepcopy(dense).bfloat16(), default_registry().adapters)
    found = best_batch(half.call, timer_for(half.device), largest=largest, seconds=0.3)
    print(f"best batch: {found.batch_size} (images/s: { ({k: round(v, 1) for k, v in found.images_per_s.items()}) })")
    return found.batch_size


def run(options: argparse.Namespace) -> int:
    """Measure every row that is missing; return the exit status."""
    started = time.perf_counter()
    dense = dense_model(options)
    batch = options.batch or best_large_batch(dense, 8 if options.tiny else 1024)
    model = options.model or ("tiny" if options.tiny else "ViT-B/16, random weights")
    for row in ROWS:
        path, wanted = options.out / f"{row.name}.json", identity(row, batch, model)
        if options.rows and row.name not in options.rows:
            continue
        if is_done(path, wanted):
            print(f"{row.name}: there already")
            continue
        if (time.perf_counter() - started) / 60 > options.minutes:
            print(f"{options.minutes:g} minutes are over; run the command again to go on")
            return 2
        write(path, json.dumps({"identity": wanted, **_attempt(row, dense, batch, options)}, indent=1) + "\n")
    return summarise(options.out)


def _attempt(row: Row, dense: nn.Module, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a row; a row that cannot run here keeps its reason."""
    print(f"{row.name} …", flush=True)
    started = time.perf_counter()
    try:
        return {**measure_row(row, dense, batch, tiny=options.tiny), "seconds": time.perf_counter() - started}
    except PahOptError as error:
        print(f"{row.name}: {error}")
        return {"skipped": str(error)}
    except RuntimeError as error:  # a kernel that this device lacks; the other rows are still wanted
        print(f"{row.name} failed: {error}")
        return {"failed": f"{type(error).__name__}: {error}"}
    finally:
        gc.collect()
        torch.compiler.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


HEADERS = (
    "row", "ms, batch 1", "wall ms", "images/s", "MFU %", "J/image", "peak MB", "file MB", "faster, batch 1",
    "throughput",
)  # fmt: skip


def summarise(folder: Path) -> int:
    """Write the table of all rows; return 1 where the compiled bf16 model misses its limit."""
    from pah_opt.report.markdown import table

    found = {row.name: _found(folder, row) for row in ROWS}
    text = "\n".join(table(HEADERS, [_line(name, data) for name, data in found.items()]))
    write(folder / "table.md", text)
    print(text)
    mfu = _mfu(found["bf16-compiled"])
    if mfu is None or not torch.cuda.is_available() or mfu >= LEAST_MFU_PCT:
        return 0
    print(f"compiled bf16 reaches {mfu:.0f} % of the measured bf16 matrix rate, {LEAST_MFU_PCT:.0f} % is wanted")
    return 1


def _found(folder: Path, row: Row) -> dict[str, Any]:
    path = folder / f"{row.name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _mfu(found: dict[str, Any]) -> float | None:
    return _model(found).timings[-1].utilization.mfu_pct if "report" in found else None


def _model(found: dict[str, Any]) -> Any:
    return Report.from_json(json.dumps(found["report"])).baseline


def _line(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    from pah_opt.report.numbers import decimals, figures, megabytes, times

    if "report" not in found:
        why = found.get("skipped") or found.get("failed") or "not measured"
        return (name, why, *[""] * (len(HEADERS) - 2))
    model = _model(found)
    small, large = model.timings[0], model.timings[-1]
    turns = Report.from_json(json.dumps(found["turns"])).candidates[0].vs_baseline if found["turns"] else None
    return (
        name, figures(small.latency.p50_ms), figures(small.latency.wall_p50_ms),
        figures(large.throughput.images_per_s), decimals(large.utilization.mfu_pct, 0),
        figures(large.energy.j_per_image), megabytes(model.memory.peak_allocated_bytes),
        megabytes(model.memory.artifact_bytes), times(turns.speedup_p50_x if turns else None),
        times(turns.throughput_x if turns else None),
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", help="a checkpoint instead of random weights")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, help="the large batch; by default the one with the best throughput")
    parser.add_argument("--minutes", type=float, default=10.0, help="start no new row after this long")
    parser.add_argument("--rows", nargs="*", choices=[row.name for row in ROWS], help="only these rows")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--tiny", action="store_true", help="a tiny model and short times, to try the command")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device can be used here; try: --device cpu --tiny", file=sys.stderr)
        return 2
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
