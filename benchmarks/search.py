"""``pah_opt.search`` against random search, plain Optuna over the flat space, and uniform recipes, in the same time.

All judge recipes the same way, on the same validation images, within the same limit of accuracy, for the same seconds
(those before the first trial included; modules are imported before). The hypervolume is the share of the area below the
dense model's cost and the limit of accuracy that the judged recipes cover, taken at forty moments. Aims: to be ahead of
each at every moment, a pick 1.3 times as good as the best uniform recipe that loses no more, and random search's last
front in half the time. It also compares predicted with measured latencies; quantized layers are predicted from the
second recipe of their type on. Prints Markdown and writes ``benchmarks/results/search.json``.

    python benchmarks/search.py --seconds 40 --seeds 3
    python benchmarks/search.py --model ID_OR_PATH --data ID_OR_PATH --seconds 1800

The figures on CIFAR-10 are of ``--skip 4000 --train-limit 1200 --test-limit 500 --drop 5 --batch 8 --seconds 180``, on
a model whose head was fitted with ``pah-opt adapt --mode head --train-limit 4000``.
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
from pah_opt.data import labels_of
from pah_opt.data.sampling import balanced_order
from pah_opt.environment import installed_version
from pah_opt.errors import PahOptError
from pah_opt.measure.settings import MeasureSettings
from pah_opt.recipe import Recipe, Step
from pah_opt.search.budget import Budget
from pah_opt.search.clock import paired_speed
from pah_opt.search.forecast import learn
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
MOMENTS = tuple(share / 40 for share in range(1, 41))
MARKS = (0.25, 0.5, 0.75, 1.0)
"""Moments that are printed."""
AIM_RATIO, AIM_TIME = 1.3, 0.5


def uniform_recipes(minimise: str) -> Iterator[list[Step]]:
    """The same everywhere: what one would try by hand, single steps first."""
    if minimise in ("latency", "macs"):
        groups = [
            [[Step.of("depth-pruning", count=count)] for count in (1, 2, 3)],
            [[Step.of("structured-pruning", target={"macs": share})] for share in (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)],
            [[Step.of("fused-qkv")]],
        ]
    else:
        groups = [
            [[Step.of("structured-pruning", target={"params": share})] for share in (0.9, 0.75, 0.6)],
            [[Step.of("sparsegpt", sparsity=share)] for share in (0.3, 0.5, 0.7)],
            [[Step.of("torchao", scheme=scheme)] for scheme in ("int8-weight-only", "int4-weight-only")],
        ]
    for count in range(1, len(groups) + 1):
        for chosen in reversed(list(itertools.combinations(groups, count))):
            for parts in itertools.product(*chosen):
                yield [step for part in parts for step in part]


def uniform(judge: Judge, seconds: float) -> list[Record]:
    """Judge uniform recipes until the time is up."""
    started = time.perf_counter()
    judge.prepare()
    records = []
    for number, steps in enumerate(uniform_recipes(judge.budget.minimise)):
        if time.perf_counter() - started >= seconds:
            break
        recipe = Recipe(name=f"uniform-{number}", steps=steps)
        record = judge(recipe, Rivals({}), Record(number, "done", recipe.to_data()))
        records.append(Record(**{**vars(record), "at_s": time.perf_counter() - started}))
    return records


def volume(records: Sequence[Record], budget: Budget, dense: float, until_s: float) -> float:
    """Return the hypervolume of what was judged until then."""
    limit = Point(1.0, budget.top1_drop_pp + 1e-9)
    points = [
        Point((record.figures[budget.figure] or 0.0) / dense, max(0.0, record.figures["top1_drop_pp"] or 0.0))
        for record in records
        if record.judged and record.at_s <= until_s
    ]
    return hypervolume(points, limit) / limit.loss


def best(records: Sequence[Record], budget: Budget, most_drop: float = float("inf")) -> Record | None:
    """Return the cheapest that keeps the limits and loses no more than that."""
    kept = [r for r in records if r.keeps(budget) and (r.figures["top1_drop_pp"] or 0.0) <= most_drop]
    return min(kept, key=lambda record: record.figures[budget.figure] or 0.0, default=None)


def row(records: Sequence[Record], budget: Budget, dense: float, seconds: float) -> dict[str, Any]:
    cheapest = best(records, budget)
    ends = sorted({record.at_s for record in records if record.judged and record.at_s <= seconds})
    return {
        "hypervolume": [volume(records, budget, dense, moment * seconds) for moment in MOMENTS],
        "steps": [(end, volume(records, budget, dense, end)) for end in ends],
        "best_cost": None if cheapest is None else cheapest.figures[budget.figure],
        "best_drop_pp": None if cheapest is None else cheapest.figures["top1_drop_pp"],
        "trials": len(records),
        "judged": sum(record.judged for record in records),
    }


def aims(found: dict[str, list[dict[str, Any]]], uniform_runs: Sequence[Sequence[Record]], budget: Budget,
         seconds: float) -> list[dict[str, Any]]:  # fmt: skip
    """Return, for each seed, how the search does against each aim."""
    rows = []
    for seed, ours in enumerate(found["pah_opt"]):
        others = {name: runs[seed] for name, runs in found.items() if name != "pah_opt"}
        ahead = {
            name: statistics.mean(a >= b for a, b in zip(ours["hypervolume"], other["hypervolume"], strict=True))
            for name, other in others.items()
        }
        goal = others["random"]["hypervolume"][-1]
        reached = next((at for at, reached in ours["steps"] if reached >= goal), None)
        fair = None if ours["best_cost"] is None else best(uniform_runs[seed], budget, ours["best_drop_pp"])
        within = others["uniform"]["best_cost"]
        rows.append({
            "ahead_share_of_moments": ahead,
            "time_to_randoms_last_front": None if reached is None else reached / seconds,
            "times_better_than_uniform_within_limits": _ratio(within, ours["best_cost"]),
            "times_better_than_uniform_that_loses_no_more":
                _ratio(None if fair is None else fair.figures[budget.figure], ours["best_cost"]),
        })  # fmt: skip
    return rows


def _ratio(theirs: float | None, ours: float | None) -> float | None:
    """Return None where one of them found nothing."""
    return theirs / ours if theirs and ours else None


def compete(model: torch.nn.Module, data: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    budget = Budget(minimise=arguments.minimise, top1_drop_pp=arguments.drop)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*METHODS, "uniform")}
    uniform_runs = []
    dense = 1.0
    search(model, data, budget, space=arguments.space, trials=1)  # or else the first alone would pay for all imports
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
            print(f"seed {seed}, {name}: {said(one)}", flush=True)
        training, validation = cut(data, 1000, seed)
        judge = Judge(model, training, validation, budget, racing=False, screening=False)
        uniform_runs.append(uniform(judge, arguments.seconds))
        found["uniform"].append(row(uniform_runs[-1], budget, dense, arguments.seconds))
        print(f"seed {seed}, uniform: {said(found['uniform'][-1])}", flush=True)
    reached = aims(found, uniform_runs, budget, arguments.seconds)
    return {"budget": budget.model_dump(), "dense_cost": dense, "moments": MOMENTS, "methods": found, "aims": reached}


def said(one: dict[str, Any]) -> str:
    return f"hypervolume {one['hypervolume'][-1]:.3f}, best cost {one['best_cost']}, {one['trials']} trials"


def latencies(model: torch.nn.Module, data: Any, batch: int) -> list[dict[str, Any]]:
    """Predicted against measured latency, of recipes that never ran before they were predicted.

    As in a search, the table learns the quantized layers of each model that was made.
    """
    training, validation = cut(data, 200, 0)
    judge = Judge(model, training, validation, Budget(batch_size=batch))
    judge.prepare()
    rows = []
    layout = judge.adapter.layout(model)
    smaller = [side - patch for side, patch in zip(layout.image_size, layout.patch_size, strict=True)]
    half = {f"{block.path}.*": "float" for block in layout.blocks[::2]}
    recipes = {
        "mlp-half": [Step.of("structured-pruning", mlp=0.5)],
        "heads-half": [Step.of("structured-pruning", heads=0.5)],
        "macs-60": [Step.of("structured-pruning", target={"macs": 0.6})],
        "macs-40-global": [Step.of("structured-pruning", target={"macs": 0.4}, scope="global")],
        "one-block-less": [Step.of("depth-pruning", count=1)],
        "two-blocks-less": [Step.of("depth-pruning", count=2)],
        "a-patch-less": [Step.of("input-size", size=smaller)],
        "int8": [Step.of("torchao", scheme="int8-dynamic")],
        "int8-every-other-block": [Step.of("torchao", scheme="int8-dynamic", per_layer=half)],
        "narrow-int8": [Step.of("structured-pruning", target={"macs": 0.6}), Step.of("torchao", scheme="int8-dynamic")],
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
        if judge.table is not None:
            learn(judge.table, made.model, judge.adapter)
        measured = float(judge.dense["latency_p50_ms"] or 0.0) / ratio
        error = None if predicted is None else 100.0 * (predicted / measured - 1.0)
        rows.append({"recipe": name, "predicted_ms": predicted, "measured_ms": measured, "error_pct": error})
    return rows


def markdown(found: dict[str, Any]) -> str:
    lines = ["| method | " + " | ".join(f"hypervolume at {mark:.0%}" for mark in MARKS) + " | best cost | trials |"]
    lines.append("|---" * (len(MARKS) + 3) + "|")
    for name, runs in found["search"]["methods"].items():
        means = [statistics.mean(run["hypervolume"][MOMENTS.index(mark)] for run in runs) for mark in MARKS]
        costs = [run["best_cost"] for run in runs if run["best_cost"] is not None]
        cost = f"{statistics.mean(costs):,.4g}" if costs else "none"
        trials = statistics.mean(run["trials"] for run in runs)
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in means) + f" | {cost} | {trials:.0f} |")
    return "\n".join([*lines, "", *aims_table(found["search"]["aims"]), "", *latency_table(found["latency"])])


def aims_table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "| aim | reached | " + " | ".join(f"seed {seed}" for seed in range(len(rows))) + " |"
    yield "|---" * (len(rows) + 2) + "|"
    for other in rows[0]["ahead_share_of_moments"]:
        values = [row["ahead_share_of_moments"][other] for row in rows]
        yield _aim(f"ahead of {other} at every moment", [f"{value:.0%}" for value in values], min(values) >= 1.0)
    times = [row["time_to_randoms_last_front"] for row in rows]
    shown = ["never" if value is None else f"{value:.0%}" for value in times]
    yield _aim("random's last front in half the time", shown, all(v is not None and v <= AIM_TIME for v in times))
    for name in ("within_limits", "that_loses_no_more"):
        ratios = [row[f"times_better_than_uniform_{name}"] for row in rows]
        shown = ["none" if value is None else f"{value:.2f}x" for value in ratios]
        label = f"{AIM_RATIO} times as good as the best uniform recipe {name.replace('_', ' ')}"
        yield _aim(label, shown, all(value is not None and value >= AIM_RATIO for value in ratios))


def _aim(label: str, values: Sequence[str], reached: bool) -> str:
    return f"| {label} | {'yes' if reached else 'no'} | {' | '.join(values)} |"


def latency_table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "| recipe | predicted, ms | measured, ms | error |"
    yield "|---|---|---|---|"
    for one in rows:
        if "error" in one:
            yield f"| {one['recipe']} | refused: {one['error'].splitlines()[-1].strip(' -')} | | |"
        elif one["predicted_ms"] is None:
            yield f"| {one['recipe']} | first of its type | {one['measured_ms']:.2f} | |"
        else:
            times = f"{one['predicted_ms']:.2f} | {one['measured_ms']:.2f}"
            yield f"| {one['recipe']} | {times} | {one['error_pct']:+.0f} % |"


def unseen(data: pah_opt.Data, skip: int, count: int) -> pah_opt.Data:
    """Leave out what ``--train-limit SKIP`` takes: of images that it was fitted on a model is surer than of others."""
    if data.train is None:
        raise SystemExit("there are no training images, of which a search cuts its validation images")
    order = balanced_order(labels_of(data.train), 0)  # as the loader takes them
    return pah_opt.Data(test=data.test, train=data.train.subset(sorted(order[skip : skip + count])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a hub id or folder; by default the small ViT of digits")
    parser.add_argument("--data", help="its images")
    parser.add_argument("--train-limit", type=int, default=2000)
    parser.add_argument("--skip", type=int, default=0, help="the --train-limit that the model was fitted with")
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
        source = Source.load(arguments.model, arguments.data, test_limit=arguments.test_limit)
        model, data = source.model, unseen(source.data, arguments.skip, arguments.train_limit)
    else:
        digits = pretrained_digits_vit()
        model, data = digits.model, digits.data
    found = {
        "model": arguments.model or "digits ViT", "space": arguments.space, "seconds": arguments.seconds,
        "latency_batch": arguments.batch, "latency": latencies(model, data, arguments.batch),
        "search": compete(model, data, arguments),
        "torch": torch.__version__, "optuna": installed_version("optuna"),
        "platform": f"{platform.system()}-{platform.machine()}",
        "threads": torch.get_num_threads(), "load_average": list(os.getloadavg()),
    }  # fmt: skip
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(markdown(found))


if __name__ == "__main__":
    main()
