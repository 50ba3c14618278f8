"""Prepare the next batches in background threads while a model works on this one."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")


def default_workers() -> int:
    """Return how many threads prepare batches: half of the processors, from 1 to 8."""
    return max(1, min(8, (os.cpu_count() or 1) // 2))


def ahead(prepare: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Yield ``prepare(item)`` for each item in order, the next ``workers`` of them under way already.

    Decoding and resizing release Python's lock, so threads suffice. What is under way when the caller stops early is
    waited for; what has not begun is not.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="pah-opt-images") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(prepare, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
