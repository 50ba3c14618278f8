"""``pah_opt.search`` against random search, plain Optuna over the flat space, and uniform recipes, in the same time.

All judge recipes the same way, on the same validation images, within the same limit of accuracy, for the same seconds
(those before the first trial included). The hypervolume is the share of the area below the dense model's cost and the
limit of accuracy that the judged recipes cover. It also compares predicted with measured latencies. Prints Markdown and
writes ``benchmarks/results/search.json``.

    python benchmarks/search.py --seconds 40 --seeds 3
    python benchmarks/search.py --model ID_OR_PATH --data ID_OR_PATH --seconds 1800
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import pah_opt
from pah_opt.adapt import pretrained_digits_vit
from pah_opt.environment import installed_version
from pah_opt.errors import PahOptError
from pah_opt.measure.settings import MeasureSettings
from pah_opt.recipe import Recipe, Step
from pah_opt.search.budget import Budget
from pah_opt.search.clock import paired_speed
from pah_opt.search.front import Point, hypervolume
from pah_opt.search.inputs import cut
from pah_opt.search.judge import Judge
from pah_opt.search.racing import Rivals
from pah_opt.search.records import Record
from pah_opt.search.searching import search
from pah_opt.workflow import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RESULTS = Path(__file__).parent / "results" / "search.json"
METHODS: dict[str, dict[str, Any]] = {
    "pah_opt": {},
    "plain Optuna": {"starts": False, "neighbours": False, "racing": False, "screening": False},
    "random": {"sampler": "random", "starts": False, "neighbours": False, "racing": False, "screening": False},
}
MARKS = (0.25, 0.5, 0.75, 1.0)


def uniform_recipes() -> Iterator[list[Step]]:
    """The same everywhere: what one would try by hand, single steps first."""
    narrow = [[Step.of("structured-pruning", target={"params": share})] for share in (0.9, 0.75, 0.6)]
    sparse = [[Step.of("sparsegpt", sparsity=share)] for share in (0.3, 0.5, 0.7)]
    stored = [[Step.of("torchao", scheme=scheme)] for scheme in ("int8-weight-only", "int4-weight-only")]
    yield from (*stored, *narrow, *sparse)
    for parts in itertools.chain(
        itertools.product(narrow, stored), itertools.product(sparse, stored), itertools.product(narrow, sparse, stored)
    ):
        yield [step for part in parts for step in part]


def uniform(judge: Judge, seconds: float) -> list[Record]:
    """Judge uniform recipes until the time is up."""
    started = time.perf_counter()
    judge.prepare()
    records = []
    for number, steps in enumerate(uniform_recipes()):
        if time.perf_counter() - started >= seconds:
            break
        recipe = Recipe(name=f"uniform-{number}", steps=steps)
        record = judge(recipe, Rivals({}), Record(number, "done", recipe.to_data()))
        records.append(Record(**{**vars(record), "at_s": time.perf_counter() - started}))
    return records


def volumes(records: Sequence[Record], budget: Budget, dense: float, seconds: float) -> list[float]:
    """Return the hypervolume at each mark of the time."""
    limit = Point(1.0, budget.top1_drop_pp + 1e-9)
    found = []
    for mark in MARKS:
        points = [
            Point((record.figures[budget.figure] or 0.0) / dense, max(0.0, record.figures["top1_drop_pp"] or 0.0))
            for record in records
            if record.judged and record.at_s <= mark * seconds
        ]
        found.append(hypervolume(points, limit) / limit.loss)
    return found


def best_cost(records: Sequence[Record], budget: Budget) -> float | None:
    return min((record.figures[budget.figure] or 0.0 for record in records if record.keeps(budget)), default=None)


def row(records: Sequence[Record], budget: Budget, dense: float, seconds: float) -> dict[str, Any]:
    return {
        "hypervolume": volumes(records, budget, dense, seconds),
        "best_cost": best_cost(records, budget),
        "trials": len(records),
        "judged": sum(record.judged for record in records),
    }


def compete(model: torch.nn.Module, data: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    budget = Budget(minimise=arguments.minimise, top1_drop_pp=arguments.drop)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*METHODS, "uniform")}
    dense = 1.0
    for seed in range(arguments.seeds):
        for name, options in METHODS.items():
            result = search(
                model, data, budget, space=arguments.space, trials=100_000, minutes=arguments.seconds / 60, seed=seed,
                measure=MeasureSettings.quick(groups={"accuracy"}), **options,
            )  # fmt: skip
            dense = float(result.dense[budget.figure] or 1.0)
            one = row(result.records, budget, dense, arguments.seconds)
            picked = None if result.report is None else result.report.models[-1]
            one["pick_test_top1_delta_pp"] = None if picked is None else picked.accuracy.top1_delta_pp
            found[name].append(one)
            print(f"seed {seed}, {name}: {one}", flush=True)
        training, validation = cut(data, 1000, seed)
        judge = Judge(model, training, validation, budget, racing=False, screening=False)
        found["uniform"].append(row(uniform(judge, arguments.seconds), budget, dense, arguments.seconds))
        print(f"seed {seed}, uniform: {found['uniform'][-1]}", flush=True)
    return {"budget": budget.model_dump(), "dense_cost": dense, "methods": found}


def latencies(model: torch.nn.Module, data: Any, batch: int) -> list[dict[str, Any]]:
    """Predicted against measured latency, of recipes that never ran before they were predicted."""
    training, validation = cut(data, 200, 0)
    judge = Judge(model, training, validation, Budget(batch_size=batch))
    judge.prepare()
    rows = []
    recipes = {
        "mlp-half": [Step.of("structured-pruning", mlp=0.5)],
        "heads-half": [Step.of("structured-pruning", heads=0.5)],
        "macs-60": [Step.of("structured-pruning", target={"macs": 0.6})],
        "macs-40-global": [Step.of("structured-pruning", target={"macs": 0.4}, scope="global")],
        "one-block-less": [Step.of("depth-pruning", count=1)],
        "two-blocks-less": [Step.of("depth-pruning", count=2)],
        "depth-and-width": [Step.of("depth-pruning", count=1), Step.of("structured-pruning", target={"macs": 0.6})],
    }
    for name, steps in recipes.items():
        recipe = Recipe(name=name, steps=steps)
        try:
            predicted = judge.predict(recipe).get("latency_p50_ms")
            made = pah_opt.apply(model, recipe, pah_opt.Data(test=validation, train=training), on_collapse="ignore")
        except PahOptError as error:
            rows.append({"recipe": name, "error": str(error)})
            continue
        ratio = statistics.median(
            paired_speed(model, made, judge.strategies.adapters, batch, seed).ratio for seed in range(3)
        )
        measured = float(judge.dense["latency_p50_ms"] or 0.0) / ratio
        error = None if predicted is None else 100.0 * (predicted / measured - 1.0)
        rows.append({"recipe": name, "predicted_ms": predicted, "measured_ms": measured, "error_pct": error})
    return rows


def markdown(found: dict[str, Any]) -> str:
    lines = ["| method | " + " | ".join(f"hypervolume at {mark:.0%}" for mark in MARKS) + " | best cost | trials |"]
    lines.append("|---" * (len(MARKS) + 3) + "|")
    for name, runs in found["search"]["methods"].items():
        means = [statistics.mean(run["hypervolume"][i] for run in runs) for i in range(len(MARKS))]
        costs = [run["best_cost"] for run in runs if run["best_cost"] is not None]
        cost = f"{statistics.mean(costs):,.0f}" if costs else "none"
        trials = statistics.mean(run["trials"] for run in runs)
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in means) + f" | {cost} | {trials:.0f} |")
    lines += ["", "| recipe | predicted, ms | measured, ms | error |", "|---|---|---|---|"]
    for one in found["latency"]:
        if one.get("error_pct") is not None:
            times = f"{one['predicted_ms']:.2f} | {one['measured_ms']:.2f}"
            lines.append(f"| {one['recipe']} | {times} | {one['error_pct']:+.0f} % |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a hub id or folder; by default the small ViT of digits")
    parser.add_argument("--data", help="its images")
    parser.add_argument("--train-limit", type=int, default=2000)
    parser.add_argument("--test-limit", type=int, default=1000)
    parser.add_argument("--space", default="small")
    parser.add_argument("--minimise", default="size")
    parser.add_argument("--drop", type=float, default=2.0, help="most top-1 that may be lost, percentage points")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each search")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32, help="images in the pass whose latency is predicted")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.model:
        source = Source.load(
            arguments.model, arguments.data, train_limit=arguments.train_limit, test_limit=arguments.test_limit
        )
        model, data = source.model, source.data
    else:
        digits = pretrained_digits_vit()
        model, data = digits.model, digits.data
    found = {
        "model": arguments.model or "digits ViT", "space": arguments.space, "seconds": arguments.seconds,
        "latency_batch": arguments.batch, "latency": latencies(model, data, arguments.batch),
        "search": compete(model, data, arguments),
        "torch": torch.__version__, "optuna": installed_version("optuna"), "platform": platform.platform(),
        "threads": torch.get_num_threads(), "load_average": list(os.getloadavg()),
    }  # fmt: skip
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(markdown(found))


if __name__ == "__main__":
    main()
