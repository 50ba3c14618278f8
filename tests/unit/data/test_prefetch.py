from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pah_opt.data import ImageSplit
from pah_opt.data.prefetch import ahead
from pah_opt.errors import DataError

from .conftest import MakeImage


@pytest.mark.parametrize("workers", [1, 3, 20])
def test_results_come_in_order(workers: int) -> None:
    def slow_for_early_ones(item: int) -> int:
        time.sleep(0.002 * (10 - item))
        return item * item

    assert list(ahead(slow_for_early_ones, range(10), workers)) == [item * item for item in range(10)]


def test_no_more_than_the_next_ones_are_prepared() -> None:
    begun: list[int] = []
    results = ahead(lambda item: begun.append(item) or item, iter(range(100)), 2)
    assert next(results) == 0
    assert len(begun) <= 3
    results.close()  # type: ignore[attr-defined]  # a generator
    assert len(begun) <= 3


def test_error_is_raised_where_its_result_would_be() -> None:
    def prepare(item: int) -> int:
        if item == 2:
            raise DataError("image 2 is broken")
        return item

    results = ahead(prepare, range(5), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(DataError, match="image 2 is broken"):
        next(results)


def test_no_thread_outlives_the_loop() -> None:
    def endless() -> Iterator[int]:
        yield from range(1000)

    for result in ahead(lambda item: item, endless(), 2):
        if result == 3:
            break
    deadline = time.monotonic() + 5
    while _own_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _own_threads() == []


def _own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pah-opt-images")]


def test_split_that_has_been_read_can_be_copied(make_image: MakeImage, processor: Any) -> None:
    split = ImageSplit([make_image(value) for value in range(6)], [0, 1] * 3, ("a", "b"), processor)
    first = torch.cat([batch.pixel_values for batch in split.batches(2)])
    again = torch.cat([batch.pixel_values for batch in copy.copy(split).batches(2)])
    assert torch.equal(first, again)
