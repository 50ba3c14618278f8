"""Trials on a real Ray cluster of several nodes on this machine; one is killed in the middle.

Not in the ordinary run (Ray is no development dependency): pip install 'pah-opt[ray]', then
pytest tests/unit/search/test_ray_engine.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from pah_opt.errors import MissingBackendError, SearchError
from pah_opt.recipe import Recipe, Step
from pah_opt.search.engines import Job
from pah_opt.search.racing import Rivals
from pah_opt.search.ray_engine import RayEngine, check_reachable, import_ray
from pah_opt.search.records import Record


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"), ("nowhere", "not of the form HOST:PORT")],
)
def test_a_cluster_that_cannot_be_reached_is_said_in_seconds(address: str, said: str) -> None:
    started = time.monotonic()
    with pytest.raises(SearchError, match=said):
        check_reachable(address)
    assert time.monotonic() - started < 10


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingBackendError, match=r"pah-opt\[ray\]"):
        import_ray()


def judge(recipe: Recipe, rivals: Rivals, record: Record) -> Record:
    """Wait as a trial would, and say which node it was."""
    import time

    import ray

    time.sleep(float(recipe.steps[0].parameters["seconds"]))
    node = ray.get_runtime_context().get_node_id()
    return replace(record, reason=node)


def job(number: int, seconds: float) -> Job:
    recipe = Recipe(name=f"job-{number}", steps=[Step.of("waits", seconds=seconds)])
    return Job(None, recipe, Rivals({}), Record(number, "done", recipe.to_data()))


@pytest.fixture
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'pah-opt[ray]'")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield made
    finally:
        made.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning",
                            "ignore::FutureWarning", "ignore::DeprecationWarning")  # fmt: skip
def test_a_node_lost_in_the_middle_loses_no_trial(cluster: Any) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    cluster.wait_for_nodes()
    engine = RayEngine(judge, cluster.address)
    try:
        assert engine.slots == 3
        ended: list[Record] = []
        for number in range(6):
            engine.start(job(number, 2.0))
        while len(ended) < 1:
            ended += [record for _, record in engine.wait()]
        cluster.remove_node(nodes[0], allow_graceful=False)
        while len(ended) < 6:
            ended += [record for _, record in engine.wait()]
    finally:
        engine.close()
    assert sorted(record.number for record in ended) == list(range(6))
    assert {record.state for record in ended} == {"done"}
    assert len({record.reason for record in ended}) >= 2, "several nodes took part"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning",
                            "ignore::FutureWarning", "ignore::DeprecationWarning")  # fmt: skip
def test_a_trial_that_hangs_on_the_cluster_is_ended(cluster: Any) -> None:
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    engine = RayEngine(judge, cluster.address, limit_s=3.0)
    try:
        engine.start(job(0, 600.0))
        ((_, record),) = engine.wait()
    finally:
        engine.close()
    assert record.state == "timed-out"
