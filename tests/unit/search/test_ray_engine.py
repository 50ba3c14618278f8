"""Trials on real Ray clusters of several nodes on this machine; nodes and workers are killed in the middle.

Not in the ordinary run (Ray is no development dependency): pip install 'pah-opt[ray]', then
pytest tests/unit/search/test_ray_engine.py.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

import pah_opt
from pah_opt.errors import MissingBackendError, SearchError
from pah_opt.measure.settings import MeasureSettings
from pah_opt.progress import Progress
from pah_opt.recipe import Recipe, Step
from pah_opt.registry import default_registry
from pah_opt.registry.default import Chosen
from pah_opt.search import cluster as clusters
from pah_opt.search import ray_engine
from pah_opt.search.cluster import check_cluster, check_reachable, import_ray
from pah_opt.search.engines import Job
from pah_opt.search.racing import Rivals
from pah_opt.search.ray_engine import RETRIES, RayEngine
from pah_opt.search.records import Record
from pah_opt.splits import Data

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{name}")
    for name in ("pytest.PytestUnraisableExceptionWarning", "ResourceWarning", "FutureWarning", "DeprecationWarning")
]
MISSING = "ray is not installed: pip install 'pah-opt[ray]'"


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"), ("nowhere", "not of the form HOST:PORT"),
     ("ray://127.0.0.1:10001", "the head's own port")],
)  # fmt: skip
def test_a_cluster_that_cannot_be_reached_is_said_in_seconds(address: str, said: str) -> None:
    started = time.monotonic()
    with pytest.raises(SearchError, match=said):
        check_reachable(address)
    assert time.monotonic() - started < 10


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingBackendError, match=r"pah-opt\[ray\]"):
        import_ray()


def test_a_search_says_so_before_it_measures_anything(model: nn.Module, data: Data) -> None:
    pytest.importorskip("ray", reason=MISSING)
    with pytest.raises(SearchError, match="no Ray cluster answers"):
        pah_opt.search(model, data, space="no space is read before", engine="ray", address="127.0.0.1:1")


def test_a_worker_loads_the_plugins_that_the_search_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's part alone, with what it asks of Ray."""
    context = SimpleNamespace(get_node_id=lambda: "a node")
    ray = SimpleNamespace(get=lambda given: given, get_runtime_context=lambda: context)
    monkeypatch.setattr(ray_engine, "import_ray", lambda: ray)
    monkeypatch.setattr(ray_engine, "_judges", {})
    loaded: list[set[str]] = []

    def judge(_recipe: Recipe, _rivals: Rivals, record: Record) -> Record:
        loaded.append({each.origin.name for each in default_registry().plugins.loaded})
        return record

    recipe = Recipe(name="any", steps=[Step.of("cast")])
    for without in ((), ("torchao",)):
        done = ray_engine._run(Chosen(without), [judge], "key", None, recipe, Rivals({}), Record(0, "done", None), {})
        assert done.place == "a node"
    assert ["torchao" in names for names in loaded] == [True, False]


@pytest.mark.slow
def test_a_port_where_something_else_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason=MISSING)
    monkeypatch.setattr(clusters, "JOIN_S", 10.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(SearchError, match=f"what answers at {address} let nobody join within 10 s"):
            check_cluster(address)


def judge(recipe: Recipe, rivals: Rivals, record: Record) -> Record:
    """Wait as a trial would, and say which node it was."""
    import ray

    given = recipe.steps[0].parameters
    time.sleep(float(given.get("seconds", 0.0)))
    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "a child"
    if "log" in given:
        with Path(str(given["log"])).open("a") as log:
            print(node, file=log)
    if given.get("how") == "dies":
        os._exit(1)
    if given.get("how") == "raises":
        raise ArithmeticError("kaput")
    return replace(record, state="failed" if given.get("how") == "fails" else "done", reason=node)


class Unpacked:
    """Judges likewise; says when it is unpacked."""

    def __init__(self, log: str) -> None:
        self.log = log

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        with Path(self.log).open("a") as log:
            print(os.getpid(), file=log)

    def __call__(self, recipe: Recipe, rivals: Rivals, record: Record) -> Record:
        return replace(judge(recipe, rivals, record), figures={"process": float(os.getpid())})


def job(number: int, **given: Any) -> Job:
    recipe = Recipe(name=f"job-{number}", steps=[Step.of("waits", **given)])
    return Job(None, recipe, Rivals({}), Record(number, "done", recipe.to_data()))


def run(engine: RayEngine, *jobs: Job) -> list[Record]:
    """Run jobs to their ends."""
    ended: list[Record] = []
    try:
        for each in jobs:
            engine.start(each)
        while len(ended) < len(jobs):
            ended += [record for _, record in engine.wait()]
    finally:
        engine.close()
    return sorted(ended, key=lambda record: record.number)


def new_cluster(nodes: int) -> tuple[Any, list[Any]]:
    pytest.importorskip("ray", reason=MISSING)
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    added = [made.add_node(num_cpus=1) for _ in range(nodes)]
    made.wait_for_nodes()
    return made, added


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[str]:
    """Address of a cluster of a head without CPUs and two nodes of one CPU each."""
    made, _ = new_cluster(2)
    try:
        yield made.address
    finally:
        made.shutdown()


@pytest.mark.slow
def test_a_cluster_without_a_gpu_is_refused_where_trials_need_one(two_nodes: str) -> None:
    with pytest.raises(SearchError, match=r"no node of the Ray cluster at .* has a GPU"):
        RayEngine(judge, two_nodes, gpus=1.0)


@pytest.mark.slow
def test_a_trial_whose_worker_dies_each_time_is_given_up(two_nodes: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    dead, fine = run(RayEngine(judge, two_nodes), job(0, how="dies", log=str(log)), job(1))
    assert (dead.state, fine.state) == ("failed", "done")
    assert f"lost {RETRIES + 1} times on the cluster" in str(dead.reason)
    assert len(log.read_text().splitlines()) == RETRIES + 1


@pytest.mark.slow
def test_what_is_raised_there_is_said_as_it_is_and_not_tried_again(two_nodes: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (raised,) = run(RayEngine(judge, two_nodes), job(0, how="raises", log=str(log)))
    assert (raised.state, raised.reason) == ("failed", "raised on the cluster: ArithmeticError: kaput")
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.slow
def test_a_trial_that_fails_is_tried_once_more_on_another_node(two_nodes: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (failed,) = run(RayEngine(judge, two_nodes), job(0, how="fails", log=str(log)))
    nodes = log.read_text().split()
    assert failed.state == "failed"
    assert len(nodes) == len(set(nodes)) == 2


@pytest.mark.slow
def test_the_model_is_unpacked_once_a_worker_and_not_once_a_trial(two_nodes: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    ended = run(RayEngine(Unpacked(str(log)), two_nodes), *(job(number, seconds=0.2) for number in range(6)))
    unpacked = log.read_text().split()
    assert len(unpacked) == len(set(unpacked)), "no process unpacked it twice"
    assert {float(process) for process in unpacked} >= {record.figures["process"] for record in ended}


@pytest.mark.slow
def test_time_in_the_queue_does_not_count_against_a_trial_and_one_that_hangs_is_ended(two_nodes: str) -> None:
    engine = RayEngine(judge, two_nodes, limit_s=8.0)
    ended = run(engine, job(0, seconds=600.0), *(job(number, seconds=3.0) for number in range(1, 7)))
    assert [record.state for record in ended] == ["timed-out", *["done"] * 6]


@pytest.mark.slow
def test_a_node_lost_in_the_middle_loses_no_trial() -> None:
    made, nodes = new_cluster(3)
    try:
        engine = RayEngine(judge, made.address)
        try:
            assert engine.slots == 3
            ended: list[Record] = []
            for number in range(6):
                engine.start(job(number, seconds=2.0))
            while len(ended) < 1:
                ended += [record for _, record in engine.wait()]
            made.remove_node(nodes[0], allow_graceful=False)
            while len(ended) < 6:
                ended += [record for _, record in engine.wait()]
        finally:
            engine.close()
    finally:
        made.shutdown()
    assert sorted(record.number for record in ended) == list(range(6))
    assert {record.state for record in ended} == {"done"}
    assert len({record.reason for record in ended}) >= 2, "several nodes took part"


class StopsAtTrial(Progress):
    """Presses ctrl-C when the first trial has ended."""

    def message(self, text: str) -> None:
        if text.startswith("trial "):
            raise KeyboardInterrupt


SPACE = "steps: [{use: magnitude-pruning, with: {sparsity: {low: 0.1, high: 0.9}}}]"


@pytest.mark.slow
def test_a_search_on_a_cluster_stops_and_goes_on_and_finds_what_one_here_would(
    two_nodes: str, model: nn.Module, data: Data, tmp_path: Path
) -> None:
    given: dict[str, Any] = {
        "space": SPACE, "calibration_images": 16, "measure": MeasureSettings.quick(groups={"accuracy"}),
        "out": tmp_path, "engine": "ray", "address": two_nodes,
    }  # fmt: skip
    budget = {"minimise": "size", "top1_drop_pp": 60}
    stopped = pah_opt.search(model, data, budget, trials=6, progress=StopsAtTrial(), **given)
    assert stopped.interrupted
    assert 1 <= len(stopped.records) < 6
    done = pah_opt.search(model, data, budget, trials=6, **given)
    assert done.records[: len(stopped.records)] == stopped.records
    assert [record.state for record in done.records] == ["done"] * 6
    assert done.pick is not None
    best = done.front[0]
    again = pah_opt.apply(model, best.made(), data, on_collapse="ignore")
    assert best.figures["artifact_bytes"] == pah_opt.storage.stored_bytes(again.model)
