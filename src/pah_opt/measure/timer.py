"""The one timer. Nothing else in the library times a model.

On CUDA a kernel launch returns before the kernel ran, so timing the call times nothing. Device time comes from a pair
of events around each pass, read after one final synchronise; wall time, which includes what the host adds, comes from a
second series with a synchronise after each pass. On the CPU both are the same.
"""

from __future__ import annotations

import gc
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

Call = Callable[[], object]


@dataclass(frozen=True)
class Block:
    """Timed passes of one model in one turn.

    Args:
        device_ms: time of each pass on the device (on the CPU: wall time).
        wall_ms: wall time of each pass, synchronised.
    """

    device_ms: tuple[float, ...]
    wall_ms: tuple[float, ...]


class Timer(Protocol):
    """Times calls on one kind of device."""

    method: str
    """What ``device_ms`` are: ``wall`` or ``cuda_event``."""

    @abstractmethod
    def time(self, call: Call, iterations: int) -> Block:
        """Time ``iterations`` calls one by one."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has done everything it was given."""

    def wall_ms(self, call: Call, iterations: int = 1) -> tuple[float, ...]:
        """Return the wall time of each of ``iterations`` calls, synchronised at both ends."""
        times = []
        self.synchronize()
        with garbage_collection_paused():
            for _ in range(iterations):
                started = time.perf_counter_ns()
                call()
                self.synchronize()
                times.append((time.perf_counter_ns() - started) / 1e6)
        return tuple(times)


class WallTimer(Timer):
    """Times calls on the CPU."""

    method = "wall"

    def time(self, call: Call, iterations: int) -> Block:
        """Time ``iterations`` calls one by one with a monotonic clock."""
        times = self.wall_ms(call, iterations)
        return Block(times, times)

    def synchronize(self) -> None:
        """Do nothing: a call on the CPU returns when it is done."""


class CudaTimer(Timer):
    """Times calls on a CUDA device with events, and by the wall clock.

    Args:
        device: the device the calls run on.
    """

    method = "cuda_event"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def time(self, call: Call, iterations: int) -> Block:
        """Time ``iterations`` calls by events, then as many by the wall clock."""
        return Block(self._event_ms(call, iterations), self.wall_ms(call, iterations))

    def _event_ms(self, call: Call, iterations: int) -> tuple[float, ...]:
        pairs = [(_event(), _event()) for _ in range(iterations)]
        self.synchronize()
        with torch.cuda.device(self.device), garbage_collection_paused():
            for start, end in pairs:
                start.record()
                call()
                end.record()
            self.synchronize()
        return tuple(start.elapsed_time(end) for start, end in pairs)

    def synchronize(self) -> None:
        """Wait until the device has done everything it was given."""
        torch.cuda.synchronize(self.device)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def timer_for(device: torch.device) -> Timer:
    """Return the timer for a device."""
    return CudaTimer(device) if device.type == "cuda" else WallTimer()


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Keep Python's garbage collector out of a timed loop, as ``timeit`` does."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
