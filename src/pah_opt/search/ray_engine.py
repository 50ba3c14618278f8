"""Trials on a Ray cluster: the model once per node, one trial a GPU, failures retried on another node."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pah_opt.errors import MissingBackendError, SearchError
from pah_opt.search.engines import Engine, Job, Judging

if TYPE_CHECKING:
    from pah_opt.recipe import Recipe
    from pah_opt.search.racing import Rivals
    from pah_opt.search.records import Record

RETRIES = 3
"""How often a trial is started again when its node or its worker process is lost."""
REACH_S = 5.0
"""Seconds in which a cluster must answer."""
_judges: dict[str, Judging] = {}
"""What judges in this worker process, by the reference it came from: unpacked once, not once a trial."""


def import_ray() -> Any:
    """Return the module.

    Raises:
        MissingBackendError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingBackendError(
            "the engine ray needs Ray, which is not installed; pip install 'pah-opt[ray]', or use the engine local"
        ) from error
    return ray


def check_reachable(address: str) -> None:
    """Try to reach a cluster's head; ``auto`` and ``local`` are left to Ray.

    Raises:
        SearchError: the address is not HOST:PORT, or nothing answers there.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise SearchError(f"the address {address!r} is not of the form HOST:PORT, such as 10.0.0.1:6379; or give auto")
    try:
        socket.create_connection((host, int(port)), timeout=REACH_S).close()
    except OSError as error:
        raise SearchError(
            f"no Ray cluster answers at {address} ({error}); start one there with ray start --head, or check address "
            "and firewall"
        ) from error


class RayEngine(Engine):
    """Runs trials on a cluster.

    The judge (model, images, limits) is put into Ray's object store once; Ray copies it to each node that runs a
    trial, and each worker process unpacks it once. A trial whose node is lost is started again by Ray on another one.

    Args:
        judge: what judges there; sent to the cluster.
        address: ``HOST:PORT`` of the head, ``auto`` for the cluster that this machine is part of, ``local`` for one of
            this machine alone.
        gpus: GPUs of one trial; by default one where the model is on a GPU, none elsewhere.
        limit_s: seconds that one trial may take; None for any.

    Raises:
        MissingBackendError: Ray is not installed.
        SearchError: the cluster cannot be reached.
    """

    def __init__(self, judge: Judging, address: str, *, gpus: float = 0.0, limit_s: float | None = None) -> None:
        self._ray = import_ray()
        check_reachable(address)
        self._owner = not self._ray.is_initialized()
        if self._owner:
            self._connect(address)
        self._gpus, self._limit_s = gpus, limit_s
        self._judge = self._ray.put(judge)
        self._key = self._judge.hex()
        self._remote = self._ray.remote(
            num_cpus=1, num_gpus=gpus, max_retries=RETRIES, max_calls=0, scheduling_strategy="SPREAD"
        )(_run)
        self._running: dict[Any, tuple[Job, float]] = {}

    def _connect(self, address: str) -> None:
        try:
            self._ray.init(
                address=None if address == "local" else address, log_to_driver=False, logging_level="ERROR",
                include_dashboard=False if address == "local" else None,
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise SearchError(f"the Ray cluster at {address} cannot be joined: {error}") from error

    @property
    def slots(self) -> int:
        """As many as the cluster has GPUs (or CPUs, without a GPU) now."""
        there = self._ray.cluster_resources()
        return max(1, int(there.get("GPU", 0) / self._gpus) if self._gpus else int(there.get("CPU", 1)))

    def start(self, job: Job) -> None:
        """Hand it to Ray."""
        reference = self._remote.remote([self._judge], self._key, job.recipe, job.rivals, job.record)
        self._running[reference] = (job, time.perf_counter())

    def wait(self) -> list[tuple[Job, Record]]:
        """Wait for the next one that ends, or runs out of time."""
        while True:
            ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=1.0)
            ended = [self._result(reference) for reference in ready] + self._overdue()
            if ended:
                return ended

    def _result(self, reference: Any) -> tuple[Job, Record]:
        job, started = self._running.pop(reference)
        try:
            record: Record = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            reason = f"lost {RETRIES + 1} times on the cluster: {type(error).__name__}: {str(error).splitlines()[0]}"
            record = replace(job.record, state="failed", reason=reason, seconds=time.perf_counter() - started)
        return job, record

    def _overdue(self) -> list[tuple[Job, Record]]:
        ended = []
        for reference, (job, started) in list(self._running.items()):
            seconds = time.perf_counter() - started
            if self._limit_s is not None and seconds > self._limit_s:
                self._ray.cancel(reference, force=True)
                del self._running[reference]
                reason = f"took longer than {self._limit_s:g} s and was ended"
                ended.append((job, replace(job.record, state="timed-out", reason=reason, seconds=seconds)))
        return ended

    def close(self) -> None:
        """Cancel what still runs, and leave the cluster if this engine joined it."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        if self._owner:
            self._ray.shutdown()


def _run(judge: list[Any], key: str, recipe: Recipe, rivals: Rivals, record: Record) -> Record:
    """Judge on a worker. The judge comes inside a list, so that Ray does not unpack it anew for every trial."""
    if key not in _judges:
        _judges.clear()
        _judges[key] = import_ray().get(judge[0])
    return _judges[key](recipe, rivals, record)
