"""Reaching a Ray cluster, with an end to the waiting."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

from pah_opt.errors import MissingBackendError, SearchError

REACH_S = 5.0
"""Seconds in which a cluster's head must accept a connection."""
JOIN_S = 60.0
"""Seconds in which a cluster can be joined; Ray alone tries for minutes where something else answers."""
JOINING = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"


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


def check_cluster(address: str) -> None:
    """Find out, before any work is done for it, whether a cluster can be joined.

    Raises:
        MissingBackendError: Ray is not installed.
        SearchError: the cluster cannot be reached or joined.
    """
    ray = import_ray()
    check_reachable(address)
    if address != "local" and not ray.is_initialized():
        _check_joined(address)


def check_reachable(address: str) -> None:
    """Try to reach a cluster's head; ``auto`` and ``local`` are left to Ray.

    Raises:
        SearchError: the address is not HOST:PORT, or nothing answers there.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise SearchError(
            f"the address {address!r} is not of the form HOST:PORT, such as 10.0.0.1:6379 (the head's own port, not "
            "that of ray://); or give auto"
        )
    try:
        socket.create_connection((host, int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise SearchError(
            f"no Ray cluster answers at {address} ({error}); start one there with ray start --head, or check address "
            "and firewall"
        ) from error


def _check_joined(address: str) -> None:
    """Join in a process of its own: Ray ends its process when it has waited in vain."""
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, and an address that has been connected to
            [sys.executable, "-c", JOINING, address], capture_output=True, text=True, timeout=JOIN_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SearchError(
            f"what answers at {address} let nobody join within {JOIN_S:g} s; is it the head of a Ray cluster (the "
            "port of ray start --head, 6379 by default)?"
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise SearchError(f"the Ray cluster at {address} cannot be joined: {last}")


def join(ray: Any, address: str) -> None:
    """Join a cluster, or start one of this machine for ``local``.

    Raises:
        SearchError: it cannot be joined.
    """
    try:
        ray.init(
            address=None if address == "local" else address, log_to_driver=False, logging_level="ERROR",
            include_dashboard=False if address == "local" else None,
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise SearchError(f"the Ray cluster at {address} cannot be joined: {error}") from error
