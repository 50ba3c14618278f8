"""Images a second, back to back; and the batch size that gives the most of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from pah_opt.measure.timer import garbage_collection_paused
from pah_opt.measure.trouble import is_out_of_memory, release_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from pah_opt.measure.timer import Call, Timer

CHUNK_S = 0.25
"""Passes for about this long are launched before the device is waited for."""
WORTH_IT = 1.02
"""A doubled batch must bring this much more throughput to be worth its latency."""


class Slice(NamedTuple):
    """One turn of back-to-back passes."""

    images: int
    seconds: float

    @property
    def images_per_s(self) -> float:
        """Images a second."""
        return self.images / self.seconds


def run_for(call: Call, timer: Timer, seconds: float) -> tuple[int, float]:
    """Call back to back for at least ``seconds``; return how many calls finished and how long they took.

    The device is waited for at both ends, and about four times a second in between, so that the clock is looked at
    while launches do not run ahead of the device by more than that.
    """
    timer.synchronize()
    done, chunk = 0, 1
    with garbage_collection_paused():
        started = time.perf_counter()
        while True:
            for _ in range(chunk):
                call()
            timer.synchronize()
            done += chunk
            elapsed = time.perf_counter() - started
            if elapsed >= seconds:
                return done, elapsed
            wanted = min(CHUNK_S, seconds - elapsed) * done / elapsed
            chunk = max(1, min(int(wanted), 2 * chunk))


def throughput_slice(call: Call, batch_size: int, timer: Timer, seconds: float) -> Slice:
    """Measure one turn of throughput."""
    passes, elapsed = run_for(call, timer, seconds)
    return Slice(passes * batch_size, elapsed)


class BestBatch(NamedTuple):
    """The batch size with the highest throughput, and what the search saw on its way."""

    batch_size: int
    images_per_s: dict[int, float]
    note: str | None


def best_batch(make_call: Callable[[int], Call], timer: Timer, *, largest: int, seconds: float = 0.5) -> BestBatch:
    """Double the batch until throughput no longer grows, memory runs out, or ``largest`` is reached.

    Args:
        make_call: makes a forward pass of a batch size.
        timer: of the device.
        largest: batch size at which to stop.
        seconds: time spent on each size.
    """
    seen: dict[int, float] = {}
    size, note = 1, None
    while size <= largest:
        try:
            call = make_call(size)
            call()
            seen[size] = throughput_slice(call, size, timer, seconds).images_per_s
        except Exception as error:  # each backend has an error of its own for running out of memory
            if not (seen and is_out_of_memory(error)):
                raise
            note = f"batch {size} runs out of memory"
            release_memory()
            break
        if size > 1 and seen[size] < seen[size // 2] * WORTH_IT:
            break
        size *= 2
    return BestBatch(max(seen, key=seen.__getitem__), seen, note)
