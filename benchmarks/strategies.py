"""Every strategy at several strengths on real CIFAR-10: accuracy, zeros, bytes and latency beside the dense model.

Resumable: a row that is already in the results file, made by the same recipe on the same images, is not run again.

    python benchmarks/strategies.py --model DENSE_FOLDER --data CIFAR10_FOLDER

DENSE_FOLDER is an image classifier with ten classes in transformers' form, such as the one that
``pah-opt adapt --mode head`` makes; docs/strategies-measured.md says which one its
figures were measured on (``--made`` is the command that made it).
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import pah_opt
from pah_opt import Data, Recipe, Step
from pah_opt.measure.accuracy import Predictions, predict
from pah_opt.measure.environment import cpu_model
from pah_opt.measure.paired import compare_predictions
from pah_opt.measure.rounds import pair_ratio, take_turns
from pah_opt.measure.shadow import uncompiled
from pah_opt.measure.statistics import paired_difference_interval
from pah_opt.measure.timer import WallTimer
from pah_opt.models.finding import find_adapter
from pah_opt.models.precision import mixed, multiplies_bf16
from pah_opt.progress import default_progress
from pah_opt.registry import default_registry
from pah_opt.storage import stored_bytes
from pah_opt.workflow import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pah_opt.splits import Split

RESULTS = Path(__file__).parent / "results" / "strategies.json"
TABLE = Path(__file__).parents[1] / "docs" / "strategies-measured.md"
NOTES = Path(__file__).with_name("strategies_notes.md")
"""What was tried where an aim is missed; written by hand, follows the table."""

CPU = torch.device("cpu")
EAGER = "eager, bf16 autocast" if multiplies_bf16(CPU) else "eager, fp32"

LATENCY_BATCH, LATENCY_ROUNDS = 8, 8
"""Images in a timed pass, and rounds in which the dense model and the row take turns."""

RECOVER: dict[str, Any] = {
    "steps": 120, "batch_size": 32, "lr": 2e-5, "layer_decay": 0.9, "warmup": 0.3, "distill": 0.9,
    "distill_features": 1.0, "mixed_precision": "bf16",
}  # fmt: skip


RECONSTRUCT: dict[str, Any] = {"images": 1536, "classifier": "fit", "mixed_precision": "bf16"}
LONGER: dict[str, Any] = {**RECONSTRUCT, "images": 3072, "images_per_class": 800}
"""More images, of --train-limit 8000."""


NARROW = "†"
"""Marks rows that were run on a CPU with AVX2 alone: in float32, and speeds are others there."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        family: the section of the table.
        strength: how strong the step is, in words.
        method: how it is done, in words.
        limit_pp: largest drop of top-1 that is aimed at, in percentage points; None without an aim.
        steps: the recipe's steps.
        compiled: evaluate compiled in fp32 instead of eagerly under bf16 autocast (int8 is slow in eager mode).
    """

    family: str
    strength: str
    method: str
    limit_pp: float | None
    steps: tuple[Step, ...]
    compiled: bool = False

    @property
    def title(self) -> str:
        """The row in words."""
        return f"{self.family} {self.strength} {self.method}"

    @property
    def recipe(self) -> Recipe:
        """The row as a recipe."""
        name = "-".join(self.title.replace("%", "").replace(":", "of").split())
        return Recipe(name="".join(c for c in name if c.isalnum() or c == "-"), steps=self.steps)


def unstructured() -> list[Row]:
    """Zeros anywhere, and n:m."""
    rows = [
        Row("unstructured", f"{share:.0%}", method, _aim(method, limit), (Step.of(use, sparsity=share),))
        for share, limit in ((0.1, 0.0), (0.3, 0.2), (0.5, 1.0), (0.7, 3.0), (0.9, None))
        for method, use in (("magnitude", "magnitude-pruning"), ("wanda", "wanda"), ("sparsegpt", "sparsegpt"))
        if share >= 0.5 or method != "wanda"
    ]
    for share in (0.1, 0.3, 0.5, 0.7):
        steps = (Step.of("sparsegpt", sparsity=share, solver="obs"),)
        rows.append(Row("unstructured", f"{share:.0%}", "sparsegpt, solver obs", None, steps))
    steps = (Step.of("sparsegpt", sparsity=0.9), Step.of("reconstruct", **RECONSTRUCT), Step.of("recover", **RECOVER))
    rows.append(Row("unstructured", "90%", "sparsegpt + reconstruct", None, steps[:2]))
    rows.append(Row("unstructured", "90%", "sparsegpt + reconstruct + recover", 3.0, steps))
    for method, use in (("magnitude", "magnitude-pruning"), ("sparsegpt", "sparsegpt")):
        rows.append(Row("2:4", "50%", method, _aim(method, 1.5), (Step.of(use, pattern="2:4"),)))
    steps = (Step.of("sparsegpt", pattern="2:4"), Step.of("reconstruct", **RECONSTRUCT))
    rows.append(Row("2:4", "50%", "sparsegpt + reconstruct", 1.5, steps))
    rows.append(Row("2:4", "50% of the MLP", "semi-structured", 1.5, (Step.of("semi-structured"),)))
    for importance in ("lamp", "taylor", "obd", "random"):
        steps = (Step.of("unstructured-pruning", sparsity=0.5, importance=importance),)
        rows.append(Row("unstructured", "50%", importance, None, steps))
    gradual = {"sparsity": 0.7, "rounds": 4, "method": "sparsegpt", "steps": 20, "batch_size": 32, "distill": 0.9,
               "distill_features": 1.0, "mixed_precision": "bf16"}  # fmt: skip
    rows.append(Row("unstructured", "70%", "gradual, by sparsegpt", None, (Step.of("gradual-pruning", **gradual),)))
    return rows


def _aim(method: str, limit_pp: float | None) -> float | None:
    """Only repair has an aim; the other methods show what it is worth."""
    return limit_pp if method == "sparsegpt" else None


def structured() -> list[Row]:
    """Heads, units and blocks."""
    half: dict[str, Any] = {"target": {"macs": 0.5}, "scope": "global"}
    mild: dict[str, Any] = {"target": {"macs": 0.7}, "scope": "global"}
    light: dict[str, Any] = {"target": {"macs": 0.75}, "scope": "global"}
    bare: dict[str, Any] = {"importance": "magnitude", "repair": "none", "scope": "layer"}
    prune, recover = "structured-pruning", Step.of("recover", **RECOVER)
    reconstruct = Step.of("reconstruct", **RECONSTRUCT)
    return [
        Row("structured", "75% of MACs", "magnitude", None, (Step.of(prune, **{**light, **bare}),)),
        Row("structured", "75% of MACs", "surgeon + repair", None, (Step.of(prune, **light),)),
        Row("structured", "50% of MACs", "magnitude", None, (Step.of(prune, **{**half, **bare}),)),
        Row("structured", "50% of MACs", "surgeon + repair", None, (Step.of(prune, **half),)),
        Row(
            "structured",
            "50% of MACs",
            "surgeon + repair, layer by layer",
            None,
            (Step.of(prune, target={"macs": 0.5}, scope="layer"),),
        ),
        Row("structured", "50% of MACs", "surgeon + repair + recover", None, (Step.of(prune, **half), recover)),
        Row("structured", "50% of MACs", "surgeon + repair + reconstruct", None, (Step.of(prune, **half), reconstruct)),
        Row(
            "structured",
            "50% of MACs",
            "surgeon + repair + reconstruct, 3,072 images",
            2.0,
            (Step.of(prune, **half), Step.of("reconstruct", **LONGER)),
        ),
        Row(
            "structured",
            "50% of MACs",
            "surgeon + repair + reconstruct + recover",
            2.0,
            (Step.of(prune, **half), reconstruct, recover),
        ),
        Row("structured", "70% of MACs", "surgeon + repair + reconstruct", None, (Step.of(prune, **mild), reconstruct)),
        Row(
            "depth",
            "2 of 12 blocks",
            "similarity + repair + reconstruct",
            None,
            (Step.of("depth-pruning", count=2), reconstruct),
        ),
        Row("depth", "2 of 12 blocks", "similarity + repair", None, (Step.of("depth-pruning", count=2),)),
        Row("width", "1/12 of the embedding", "activation + repair", None, (Step.of("width-pruning", ratio=1 / 12),)),
        *(
            Row("structured", "75% of MACs", f"{each} + repair", None, (Step.of(prune, importance=each, **light),))
            for each in ("activation", "taylor", "hessian", "lamp", "random")
        ),
    ]


def quantized() -> list[Row]:
    """Fewer bits."""

    def row(strength: str, use: str, limit: float | None, compiled: bool = False, **parameters: Any) -> Row:
        return Row("quantized", strength, use, limit, (Step.of(use, **parameters),), compiled)

    return [
        row("bf16", "cast", 0.2, dtype="bf16"),
        row("int8 weight-only", "torchao", 0.2, scheme="int8-weight-only"),
        row("int8 dynamic", "torchao", 0.2, compiled=True, scheme="int8-dynamic"),
        row("int8 static", "torchao", 0.2, compiled=True, scheme="int8-static"),
        row("int8 static, naive", "torchao", None, compiled=True, scheme="int8-static", naive=True),
        row("int8 static, naive, guarded", "torchao", None, compiled=True, scheme="int8-static", naive=True,
            guarded={"max_kl": 0.01}),
        row("int8 QAT, 60 updates", "torchao", 0.2, compiled=True, scheme="int8-qat",
            training={"steps": 60, "batch_size": 32, "distill": 0.9, "mixed_precision": "bf16"}),
        row("int4 weight-only", "torchao", 0.5, scheme="int4-weight-only"),
        row("fp8 weight-only", "torchao", 0.2, scheme="fp8-weight-only"),
        row("int8", "bitsandbytes", 0.2, scheme="int8"),
        row("nf4", "bitsandbytes", 0.5, scheme="nf4"),
        row("fp4", "bitsandbytes", None, scheme="fp4"),
        row("nf4, each weight alone", "bitsandbytes", None, scheme="nf4", rounding="nearest"),
    ]  # fmt: skip


def combined() -> list[Row]:
    """Several at once."""
    int8 = Step.of("torchao", scheme="int8-weight-only")
    half = Step.of("structured-pruning", target={"macs": 0.5}, scope="global")
    return [
        Row("combined", "50% zeros, int8", "sparsegpt + torchao", None, (Step.of("sparsegpt", sparsity=0.5), int8)),
        Row("combined", "50% of MACs, int8", "surgeon + repair + reconstruct + torchao", None,
            (half, Step.of("reconstruct", **RECONSTRUCT), int8)),
    ]  # fmt: skip


def runtime() -> list[Row]:
    """The same weights, run otherwise."""
    return [
        *(
            Row("runtime", f"{side} of 224 pixels", "input-size", None, (Step.of("input-size", size=side),))
            for side in (182, 154, 112)
        ),
        Row("runtime", "one product for q, k, v", "fused-qkv", None, (Step.of("fused-qkv"),)),
        Row("runtime", "default", "compile", None, (Step.of("compile"),)),
    ]


SECTIONS = {
    "quantized": quantized, "unstructured": unstructured, "structured": structured, "combined": combined,
    "runtime": runtime,
}  # fmt: skip


class Bench:
    """Runs rows and keeps the results file."""

    def __init__(self, source: Source, data: Data, results: Path, calibration: int, made: str | None = None) -> None:
        self.source, self.data, self.results, self.calibration = source, data, results, calibration
        found: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
        self.made = made or found.get("made")
        self.adapter = find_adapter(source.model, default_registry().adapters)
        self.rows: dict[str, Any] = found.get("rows", {})
        self.dense: dict[bool, Predictions] = {}

    def predictions(self, model: torch.nn.Module, *, compiled: bool) -> Predictions:
        """Classify the test images, one way or the other."""
        precision: AbstractContextManager[Any] = nullcontext() if compiled else mixed("bf16", CPU)
        runnable = torch.compile(model) if compiled else model
        with precision:
            return predict(
                runnable, self.adapter, self.images_for(model), batch_size=50, fingerprint=self.data.test.fingerprint
            )

    def images_for(self, model: torch.nn.Module) -> Split:
        """Return the test images at the size that a model takes."""
        return self.data.test.resized(*self.adapter.layout(uncompiled(model)).image_size)

    def baseline(self, *, compiled: bool) -> Predictions:
        """The dense model, evaluated the same way, once."""
        if compiled not in self.dense:
            self.dense[compiled] = self.predictions(self.source.model, compiled=compiled)
        return self.dense[compiled]

    def speed(self, model: torch.nn.Module, *, compiled: bool) -> dict[str, Any]:
        """Time the row and the dense model in turns: fp32 (or the row's own type), eager or both compiled."""
        timer = WallTimer()

        def turn(candidate: torch.nn.Module) -> Callable[[], float]:
            pixels = next(iter(self.images_for(candidate).batches(LATENCY_BATCH))).pixel_values
            images = pixels.to(next(each.dtype for each in candidate.parameters() if each.is_floating_point()))
            runnable = torch.compile(candidate, dynamic=False) if compiled else candidate

            def timed() -> float:
                with torch.inference_mode():
                    return timer.wall_ms(lambda: runnable(images))[0]

            timed()
            return timed

        turns = {"dense": turn(self.source.model), "row": turn(model)}
        rounds = take_turns(turns, lambda _: True, at_least=LATENCY_ROUNDS, at_most=LATENCY_ROUNDS)
        dense, row = ([each[name] for each in rounds] for name in ("dense", "row"))
        ratio = pair_ratio(dense, row)
        return {"latency_ms": row, "dense_latency_ms": dense, "speedup": ratio.value, "speedup_ci95": ratio.interval}

    def run(self, row: Row) -> None:
        """Run one row unless it is there already, and write the results file."""
        key = f"{row.recipe.sha256[:16]}-{self.data.test.fingerprint[:16]}"
        if key in self.rows:
            return
        started = time.perf_counter()
        artifact = pah_opt.apply(
            self.source.model, row.recipe, self.data, calibration_images=self.calibration, on_collapse="ignore",
            progress=default_progress(),
        )  # fmt: skip
        made = time.perf_counter() - started
        judged = self.predictions(artifact.model, compiled=row.compiled)
        paired = compare_predictions(judged, self.baseline(compiled=row.compiled))
        last = artifact.steps[-1].after
        torch.compiler.reset()
        self.rows[key] = {
            "family": row.family, "strength": row.strength, "method": row.method, "limit_pp": row.limit_pp,
            "recipe": row.recipe.to_data(), "evaluated": "compiled fp32" if row.compiled else EAGER,
            "top1": judged.top1, "dense_top1": self.baseline(compiled=row.compiled).top1, "paired": asdict(paired),
            "images": len(judged), "params": last["params"], "params_nonzero": last["params_nonzero"],
            "macs": last["macs"], "file_bytes": stored_bytes(artifact.model), "made_s": round(made, 1),
            "cpu": cpu_model(), "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "latency_batch": LATENCY_BATCH, **self.speed(artifact.model, compiled=row.compiled),
        }  # fmt: skip
        self.save()
        print(f"{row.family:13} {row.strength:18} {row.method:36} {judged.top1:.2%} in {made:.0f} s", flush=True)

    def save(self) -> None:
        """Write everything measured so far."""
        head = {
            "model": Path(self.source.name).name,
            **({"made": self.made} if self.made else {}),
            "test": self.data.test.name.rpartition("/")[2],
            "threads": torch.get_num_threads(),
            "torch": torch.__version__, "calibration_images": self.calibration,
            "dense_file_bytes": stored_bytes(self.source.model),
        }  # fmt: skip
        self.results.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.results.with_suffix(".tmp")
        temporary.write_text(json.dumps({**head, "rows": self.rows}, indent=1) + "\n")
        temporary.replace(self.results)


def page(results: dict[str, Any]) -> str:
    """Render the results file as a page of the documentation."""
    made = f"made by `{results['made']}`, " if results.get("made") else ""
    return (
        "# Measured figures\n\n"
        f"Made by `benchmarks/strategies.py` from `benchmarks/results/strategies.json`: `{results['model']}`, "
        f"{made}"
        f"judged on `{results['test']}` (images that no step saw), {results['calibration_images']} calibration images, "
        f"{results['threads']} threads, torch {results['torch']}; the dense file has "
        f"{results['dense_file_bytes'] / 1e6:.1f} MB. Changes are paired by image, with their score interval; a tick "
        "says whether the aim is reached. Accuracy is taken under bf16 autocast (fp32 where the CPU has no bf16), and "
        "compiled in fp32 for int8 products. *Speed* is the dense model's time over the row's, batch "
        f"{LATENCY_BATCH}, in turns, with its interval (one that covers 1 is no difference): eager, or both compiled "
        f"for int8 products. {NARROW} on a CPU with AVX2 alone. Rows that are not here were not run yet.\n\n"
        + table(results)
        + NOTES.read_text()
    )


def table(results: dict[str, Any]) -> str:
    """Render the results as a Markdown table."""
    lines = [
        "| Family | Strength | Method | Top-1 | Change, pt (95 %) | Aim | MACs | Non-zero | File, MB | Speed |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in _in_order(results["rows"].values()):
        low, high = _change_interval(row)
        delta, limit = row["paired"]["top1_delta_pp"], row["limit_pp"]
        aim = "" if limit is None else f"≥ {0 - limit:g} {'✓' if delta >= -limit - 1e-9 else '✗'}"
        zeros = "" if row["params_nonzero"] is None else f"{row['params_nonzero'] / row['params']:.0%}"
        lines.append(
            f"| {row['family']} | {row['strength']} | {row['method']}{_mark(row)} | {row['top1']:.2%} "
            f"| {delta:+.2f} ({low:+.2f} … {high:+.2f}) | {aim} | {row['macs'] / 1e9:.2f} G "
            f"| {zeros} | {row['file_bytes'] / 1e6:.1f} "
            f"| {row['speedup']:.2f}x{_range(row['speedup_ci95'])} |"
        )
    return "\n".join(lines) + "\n"


def _in_order(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Order rows by family and strength, as the sections name them first; what is compared is side by side."""
    declared = [each for section in SECTIONS.values() for each in section()]
    families = list(dict.fromkeys(each.family for each in declared))
    strengths = list(dict.fromkeys(each.strength for each in declared))
    return sorted(rows, key=lambda row: (families.index(row["family"]), strengths.index(row["strength"])))


def _change_interval(row: dict[str, Any]) -> tuple[float, float]:
    """Return the interval of a row's change in points, from its counts: older rows hold a bootstrap's."""
    paired = row["paired"]
    low, high = paired_difference_interval(paired["flips_to_right"], paired["flips_to_wrong"], row["images"])
    return 100.0 * low, 100.0 * high


def _mark(row: dict[str, Any]) -> str:
    """Mark rows of a machine whose speeds are not those of the others."""
    return f" {NARROW}" if row.get("cpu_capability") == "AVX2" else ""


def _range(interval: list[float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.2f} … {interval[1]:.2f})"


def _wanted(row: Row, texts: list[str]) -> bool:
    return any(text in row.title for text in texts)


def main() -> None:
    """Run what was asked for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--made", metavar="COMMAND", help="what made the dense model; kept with the results")
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--sections", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT", help="rows whose strength and method contain one of these"
    )
    parser.add_argument("--test-limit", type=int, default=2000)
    parser.add_argument("--train-limit", type=int, default=4000)
    parser.add_argument("--calibration", type=int, default=256)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--page-only", action="store_true", help="write the page from the results that are there")
    options = parser.parse_args()
    if options.page_only:
        options.table.write_text(page(json.loads(options.results.read_text())))
        return
    if options.model is None:
        parser.error("give --model")
    source = Source.load(options.model, options.data, train_limit=options.train_limit, test_limit=options.test_limit)
    if source.data is None:
        parser.error("there are no images")
    bench = Bench(source, source.data, options.results, options.calibration, options.made)
    rows = [row for section in options.sections for row in SECTIONS[section]() if _wanted(row, options.only)]
    # Those with an aim first: whoever stops early has what the aims are judged by.
    for row in sorted(rows, key=lambda row: row.limit_pp is None):
        bench.run(row)
    options.table.write_text(page(json.loads(options.results.read_text())))


if __name__ == "__main__":
    main()
