"""How a search scales over a Ray cluster: overhead per trial and efficiency at 1, 2, 4 and 8 workers.

The cluster is a real one, of as many nodes on this machine as there are workers; everything of a search is real too
(proposals, Optuna's storage, Ray, the model shipped to each node) except that a trial waits for as long as a real one
takes, so that the workers do not compete for this machine's cores. Ideal is the time of all trials over the workers;
efficiency is the ideal over what it took. Start-up (worker processes that import torch and unpack the model) is paid
once for each worker and reported on its own. Prints Markdown and writes ``benchmarks/results/search_scaling.json``.

    pip install 'pah-opt[ray]'
    python benchmarks/search_scaling.py --workers 1 2 4 8 --seconds 10
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pah_opt.adapt import pretrained_digits_vit
from pah_opt.environment import installed_version
from pah_opt.models import find_adapter
from pah_opt.recipe import Recipe, Step
from pah_opt.registry import default_registry
from pah_opt.search.bound import BoundSpace
from pah_opt.search.budget import Budget
from pah_opt.search.engines import Engine, Job, Local
from pah_opt.search.loop import Loop
from pah_opt.search.proposing import Proposer
from pah_opt.search.racing import Rivals
from pah_opt.search.ray_engine import RayEngine
from pah_opt.search.records import Record, Rung
from pah_opt.search.space import as_space
from pah_opt.search.study import Study

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parent / "results" / "search_scaling.json"
SLICE = 40
"""Trials over which the time of proposing is averaged."""
SPACE = """
name: scaling
steps:
  - use: sparsegpt
    with: {sparsity: {low: 0.1, high: 0.8}}
  - use: torchao
    with: {scheme: int8-weight-only, per_layer: {per: block, choices: [int8-weight-only, int4-weight-only]}}
"""


@dataclass
class Waiting:
    """Judges by waiting.

    Args:
        seconds: how long a trial takes.
        model: what a real judge would carry to each node.
    """

    seconds: float
    model: torch.Tensor

    def __call__(self, recipe: Recipe, _rivals: Rivals, record: Record) -> Record:
        """Wait, and make figures up from the recipe's digest."""
        started = time.perf_counter()
        time.sleep(self.seconds)
        share = int(recipe.sha256[:8], 16) / 16**8
        figures = {"artifact_bytes": 1e6 * share, "top1": 0.9, "top1_drop_pp": 5.0 * (1.0 - share)}
        seconds = time.perf_counter() - started
        return replace(record, figures=figures, rungs=(Rung(100, 5.0 * (1.0 - share)),), seconds=seconds)


def run(workers: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Search on a cluster of ``workers`` nodes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(workers):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        payload = torch.randn(arguments.megabytes * 250_000)
        began = time.perf_counter()
        engine = RayEngine(Waiting(arguments.seconds, payload), cluster.address)
        try:
            start_up = time.perf_counter() - began + _warm(engine, workers, arguments.seconds)
            return _searched(engine, workers, start_up, arguments)
        finally:
            engine.close()
    finally:
        cluster.shutdown()


def looped(engine: Engine, trials: int) -> tuple[Loop, float]:
    """Search with an engine; return the loop and its seconds."""
    model = pretrained_digits_vit().model
    registry, budget = default_registry(), Budget(minimise="size", top1_drop_pp=5.0)
    layout = find_adapter(model, registry.adapters).layout(model)
    bound = BoundSpace.of(as_space(SPACE), registry, model, layout)
    dense = {"artifact_bytes": 1e6, "top1": 0.9, "top1_drop_pp": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), bound, budget, {"benchmark": "scaling"}, parallel=True)
        loop = Loop(study, bound, budget, Proposer(bound, budget), engine, dense, trials)
        began = time.perf_counter()
        loop.run()
        return loop, time.perf_counter() - began


def proposing(trials: int) -> dict[str, float]:
    """Return the seconds that proposing and recording take a trial, when trials take none, as the history grows."""
    loop, _ = looped(Local(Waiting(0.0, torch.empty(0))), trials)
    ends = [record.at_s for record in loop.records]
    return {
        f"trials {start}-{start + SLICE}": (ends[start + SLICE - 1] - ends[start]) / (SLICE - 1)
        for start in (0, (len(ends) - SLICE) // 2, len(ends) - SLICE)
    }


def _warm(engine: RayEngine, workers: int, seconds: float) -> float:
    """Let every worker start and unpack the model; return how long that took beyond the wait."""
    began = time.perf_counter()
    for number in range(workers):
        recipe = Recipe(name=f"first-{number}", steps=[Step.of("cast")])
        engine.start(Job(None, recipe, Rivals({}), Record(number, "done", recipe.to_data())))
    ended = 0
    while ended < workers:
        ended += len(engine.wait())
    return time.perf_counter() - began - seconds


def _searched(engine: RayEngine, workers: int, start_up: float, arguments: argparse.Namespace) -> dict[str, Any]:
    trials = arguments.rounds * workers
    loop, seconds = looped(engine, trials)
    ideal = arguments.rounds * arguments.seconds
    return {
        "workers": workers, "trials": len(loop.records), "seconds": seconds, "ideal_s": ideal,
        "efficiency": ideal / seconds, "overhead_per_trial_s": (seconds - ideal) * workers / trials,
        "trials_per_hour": 3600.0 * trials / seconds, "start_up_s": start_up,
        "states": sorted({record.state for record in loop.records}),
    }  # fmt: skip


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Render the table."""
    lines = [
        "| workers | trials | seconds | ideal | efficiency | overhead per trial | trials per hour | start-up |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['workers']} | {row['trials']} | {row['seconds']:.1f} | {row['ideal_s']:.1f} | {row['efficiency']:.1%} "
        f"| {1000 * row['overhead_per_trial_s']:.0f} ms | {row['trials_per_hour']:,.0f} | {row['start_up_s']:.1f} s |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Run every size of the cluster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=6, help="trials of each worker")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long a trial waits")
    parser.add_argument("--megabytes", type=int, default=88, help="size of the model that is shipped; a ViT-S has 88")
    parser.add_argument("--proposals", type=int, default=400, help="trials that take no time, to time the proposing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("ray").setLevel(logging.ERROR)
    proposals = proposing(arguments.proposals)
    print(proposals, flush=True)
    rows = []
    for workers in arguments.workers:
        rows.append(run(workers, arguments))
        print(rows[-1], flush=True)
    found = {
        "seconds_per_trial": arguments.seconds, "model_megabytes": arguments.megabytes, "rows": rows,
        "proposing_s": proposals,
        "ray": installed_version("ray"), "optuna": installed_version("optuna"), "torch": torch.__version__,
        "cores": os.cpu_count(), "platform": f"{platform.system()}-{platform.machine()}",
    }  # fmt: skip
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(markdown(rows))


if __name__ == "__main__":
    main()
