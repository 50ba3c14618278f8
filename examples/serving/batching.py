"""Single images in, batches to the model: a batch goes when it is full, or when its first image has waited enough."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


class QueueFullError(Exception):
    """More images wait than may; try again later."""


class Waiting(NamedTuple):
    """An image in the queue, and where its result goes."""

    pixels: NDArray[Any]
    result: asyncio.Future[NDArray[Any]]


class Batcher:
    """Collects images and runs them together, one batch at a time, in a thread of its own.

    Args:
        run: from ``(batch, ...)`` to one row of results for each.
        max_batch: images in a batch at most.
        max_wait_s: seconds that the first image of a batch waits for others at most.
        max_queue: images that may wait.
        observe: told of each batch: images and seconds.
    """

    def __init__(
        self, run: Callable[[NDArray[Any]], NDArray[Any]], *, max_batch: int, max_wait_s: float, max_queue: int,
        observe: Callable[[int, float], None] = lambda _images, _seconds: None,
    ) -> None:  # fmt: skip
        self._run = run
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._max_queue = max_queue
        self._observe = observe
        self._queue: asyncio.Queue[Waiting | None] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._queue.qsize()

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Finish what is in the queue, then stop."""
        self._queue.put_nowait(None)
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def submit(self, images: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return a row of results for each image, all together.

        Raises:
            QueueFullError: there is no room for all of them; none was taken.
        """
        if self.waiting + len(images) > self._max_queue:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        entries = [Waiting(pixels, loop.create_future()) for pixels in images]
        for entry in entries:
            self._queue.put_nowait(entry)
        return await asyncio.gather(*(entry.result for entry in entries))

    async def _work(self) -> None:
        while (first := await self._queue.get()) is not None:
            batch, last = await self._fill([first])
            await self._answer(batch)
            if last:
                return

    async def _fill(self, batch: list[Waiting]) -> tuple[list[Waiting], bool]:
        """Add images until the batch is full or time is up; also tell whether the end was reached."""
        until = time.monotonic() + self._max_wait_s
        while len(batch) < self._max_batch:
            try:
                entry = await asyncio.wait_for(self._queue.get(), until - time.monotonic())
            except (asyncio.TimeoutError, TimeoutError):
                break
            if entry is None:
                return batch, True
            batch.append(entry)
        return batch, False

    async def _answer(self, batch: list[Waiting]) -> None:
        wanted = [entry for entry in batch if not entry.result.done()]  # a client that went away cancels its own
        if not wanted:
            return
        began = time.monotonic()
        try:
            pixels = np.stack([entry.pixels for entry in wanted])
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, pixels)
        except Exception as error:  # noqa: BLE001  # whatever the model raises is the answer to these requests, not the end
            for entry in wanted:
                if not entry.result.done():
                    entry.result.set_exception(error)
            return
        self._observe(len(wanted), time.monotonic() - began)
        for entry, row in zip(wanted, rows, strict=True):
            if not entry.result.done():
                entry.result.set_result(row)
