"""Trials on a Ray cluster: the model once per node, one trial a GPU, failures retried on another node."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pah_opt.errors import SearchError
from pah_opt.registry.default import Chosen
from pah_opt.search.child import Child
from pah_opt.search.cluster import check_reachable, import_ray, join
from pah_opt.search.engines import Answer, Engine, Job, Judging, answer, tell_timings, timings_of

if TYPE_CHECKING:
    from pah_opt.recipe import Recipe
    from pah_opt.search.engines import Timings
    from pah_opt.search.racing import Rivals
    from pah_opt.search.records import Record, State

RETRIES = 3
"""How often a trial is started again when its node or its worker process is lost."""
WAIT_S = 1.0
"""Seconds after which waiting returns with nothing, so that the clock and new nodes are looked at."""
NODE_LABEL = "ray.io/node-id"
"""Label that Ray gives every node."""
_judges: dict[str, Judging | Child] = {}
"""What judges in this worker process, by the reference it came from: unpacked once, not once a trial."""


@dataclass
class _Running:
    """A trial on the cluster.

    Args:
        job: the trial.
        started: when it was handed to Ray, in seconds.
        lost: how often its node or worker was lost.
        first: what the first node said of it, where that may be the node's fault.
    """

    job: Job
    started: float
    lost: int = 0
    first: Answer | None = None


class RayEngine(Engine):
    """Runs trials on a cluster.

    The judge (model, images, limits) is put into Ray's object store once; Ray copies it to each node that runs a
    trial, and each worker process unpacks it once. A trial whose node or worker is lost is started again, up to
    :data:`RETRIES` times; one that fails or runs out of memory is tried once more, on another node if there is one.

    Args:
        judge: what judges there; sent to the cluster.
        address: ``HOST:PORT`` of the head, ``auto`` for the cluster that this machine is part of, ``local`` for one of
            this machine alone.
        gpus: GPUs of one trial; none by default.
        limit_s: seconds that one trial may take, counted from where it begins to run; None for any. Trials then run
            in a child of their worker.

    Raises:
        MissingBackendError: Ray is not installed.
        SearchError: the cluster cannot be reached, or has nothing that could run a trial.
    """

    def __init__(self, judge: Judging, address: str, *, gpus: float = 0.0, limit_s: float | None = None) -> None:
        self._ray = import_ray()
        check_reachable(address)
        self._owner = not self._ray.is_initialized()
        if self._owner:
            join(self._ray, address)
        self._gpus, self._limit_s, self._here, self._chosen = gpus, limit_s, judge, Chosen.here()
        self._running: dict[Any, _Running] = {}
        if self.slots == 0:
            self.close()
            raise SearchError(
                f"no node of the Ray cluster at {address} has a {self._needed} for a trial; add nodes that have one"
                + (", or search on the CPU" if gpus else "")
            )
        # With a time limit only the child of a worker unpacks it: a model on a GPU would be there twice otherwise.
        self._judge = self._ray.put(judge if limit_s is None else self._ray.cloudpickle.dumps(judge))
        self._key = self._judge.hex()
        # Retried here, not by Ray, which tries for ever what the system kills for lack of memory.
        self._remote = self._ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0, max_calls=0)(_run)

    @property
    def _needed(self) -> str:
        return "GPU" if self._gpus else "CPU"

    @property
    def slots(self) -> int:
        """As many as the cluster has GPUs (or CPUs, without a GPU) now."""
        there = float(self._ray.cluster_resources().get(self._needed, 0))
        return int(there / (self._gpus or 1.0))

    def start(self, job: Job) -> None:
        """Hand it to Ray."""
        self._submit(_Running(job, time.perf_counter()))

    def _submit(self, trial: _Running) -> None:
        remote = self._remote.options(scheduling_strategy=self._where(trial))
        job = trial.job
        reference = remote.remote(
            self._chosen, [self._judge], self._key, self._limit_s, job.recipe, job.rivals, job.record,
            timings_of(self._here),
        )  # fmt: skip
        self._running[reference] = trial

    def _where(self, trial: _Running) -> Any:
        if trial.first is None:
            return "SPREAD"
        from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

        return NodeLabelSchedulingStrategy(hard={}, soft={NODE_LABEL: NotIn(trial.first.place)})

    def wait(self) -> list[tuple[Job, Record]]:
        """Wait for the next one that ends; return nothing after a second, and for one that is started again."""
        if not self._running:  # every node is gone, and with them every trial
            time.sleep(WAIT_S)
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=WAIT_S)
        return [ended for reference in ready if (ended := self._result(reference)) is not None]

    def _result(self, reference: Any) -> tuple[Job, Record] | None:
        trial = self._running.pop(reference)
        try:
            given: Answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return self._broken(trial, error)
        tell_timings(self._here, given.timings)
        if given.record.state in ("failed", "out-of-memory") and trial.first is None and self._elsewhere(given.place):
            trial.first = given
            self._submit(trial)
            return None
        return trial.job, _said_twice(given, trial.first)

    def _elsewhere(self, place: str | None) -> bool:
        """Tell whether another node can run a trial."""
        nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get(self._needed, 0) >= 1]
        return any(node["NodeID"] != place for node in nodes)

    def _broken(self, trial: _Running, error: Exception) -> tuple[Job, Record] | None:
        known = self._ray.exceptions
        said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        state: State = "failed"
        if isinstance(error, known.RayTaskError):  # raised there, so it would be again
            said = f"raised on the cluster: {type(error.cause).__name__}: {error.cause}"
        elif isinstance(error, known.OutOfMemoryError):
            state = "out-of-memory"
        elif trial.lost < RETRIES:
            trial.lost += 1
            self._submit(trial)
            return None
        else:
            said = f"lost {RETRIES + 1} times on the cluster: {said}"
        seconds = time.perf_counter() - trial.started
        return trial.job, replace(trial.job.record, state=state, reason=said, seconds=seconds)

    def close(self) -> None:
        """Cancel what still runs, and leave the cluster if this engine joined it."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        if self._owner:
            self._ray.shutdown()


def _said_twice(given: Answer, first: Answer | None) -> Record:
    record = given.record
    if first is None or record.state == "done" or record.reason != first.record.reason:
        return record
    return replace(record, reason=f"{record.reason} (on two nodes)" if first.place != given.place else record.reason)


def _run(
    chosen: Chosen, judge: list[Any], key: str, limit_s: float | None, recipe: Recipe, rivals: Rivals, record: Record,
    known: Timings,
) -> Answer:  # fmt: skip
    """Judge on a worker, with the plugins that the search chose: the worker was started without them.

    The judge comes inside a list, so that Ray does not unpack it anew for every trial.
    """
    ray = import_ray()
    with chosen.used():
        here = _judge_of(ray, judge, key, limit_s)
        given = (
            here.answer(recipe, rivals, record, known)
            if isinstance(here, Child)
            else answer(here, recipe, rivals, record, known)
        )
    return replace(given, place=ray.get_runtime_context().get_node_id())


def _judge_of(ray: Any, judge: list[Any], key: str, limit_s: float | None) -> Judging | Child:
    if key not in _judges:
        for old in _judges.values():
            if isinstance(old, Child):
                old.close()
        _judges.clear()
        got = ray.get(judge[0])
        _judges[key] = got if limit_s is None else Child(got, limit_s)
    return _judges[key]
