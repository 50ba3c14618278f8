from __future__ import annotations

import time

import pytest
import torch

from pah_opt.measure import throughput
from pah_opt.measure.throughput import Slice, best_batch, run_for, throughput_slice
from pah_opt.measure.timer import Call, WallTimer


def test_passes_run_for_at_least_the_asked_time() -> None:
    calls: list[int] = []
    passes, seconds = run_for(lambda: calls.append(1), WallTimer(), 0.05)
    assert passes == len(calls)
    assert 0.05 <= seconds < 2


def test_a_slow_pass_is_made_once() -> None:
    assert run_for(lambda: time.sleep(0.03), WallTimer(), 0.001)[0] == 1


def test_throughput_counts_images() -> None:
    found = throughput_slice(lambda: time.sleep(0.004), 8, WallTimer(), 0.05)
    assert found.images % 8 == 0
    assert 50 < found.images_per_s <= 2000


def test_throughput_is_images_over_wall_time() -> None:
    assert Slice(300, 1.5).images_per_s == 200


def scripted(monkeypatch: pytest.MonkeyPatch, rates: dict[int, float]) -> None:
    monkeypatch.setattr(
        throughput, "throughput_slice", lambda call, size, timer, seconds: Slice(int(rates[size] * 10), 10.0)
    )


def test_the_best_batch_is_the_last_that_was_worth_doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, {1: 100, 2: 180, 4: 300, 8: 310, 16: 311, 32: 999})
    found = best_batch(lambda size: lambda: None, WallTimer(), largest=1024)
    assert found.batch_size == 16
    assert list(found.images_per_s) == [1, 2, 4, 8, 16]


def test_the_search_ends_at_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, {1: 1, 2: 2, 4: 4})
    assert best_batch(lambda size: lambda: None, WallTimer(), largest=4).batch_size == 4


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_ends_the_search_and_is_said(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, {1: 1, 2: 2, 4: 4})

    def make(size: int) -> Call:
        if size == 4:
            raise error
        return lambda: None

    found = best_batch(make, WallTimer(), largest=64)
    assert (found.batch_size, found.note) == (2, "batch 4 runs out of memory")


def test_any_other_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(size: int) -> Call:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        best_batch(make, WallTimer(), largest=64)
