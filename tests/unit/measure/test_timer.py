"""The timer itself: known lengths, another timer, an injected slow-down, and CUDA's order of calls."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable

import pytest
import torch
from torch.utils import benchmark

from pah_opt.measure import timer as timer_module
from pah_opt.measure.rounds import pair_ratio, take_turns
from pah_opt.measure.timer import CudaTimer, WallTimer, timer_for


def busy(seconds: float) -> None:
    """Compute for a known time."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.mark.parametrize(("kernel", "seconds"), [(time.sleep, 0.005), (busy, 0.003)])
def test_a_kernel_of_known_length_is_timed_right(kernel: Callable[[float], None], seconds: float) -> None:
    """The shortest of the passes is that long, plus next to nothing; a busy machine only makes passes longer."""
    block = WallTimer().time(lambda: kernel(seconds), 15)
    assert seconds * 1e3 <= min(block.device_ms) < seconds * 1e3 + 0.5
    assert block.device_ms == block.wall_ms


def test_times_are_what_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.chain.from_iterable((start, start + length) for start, length in ((0, 5), (100, 7), (200, 9)))
    monkeypatch.setattr(timer_module.time, "perf_counter_ns", lambda: next(clock) * 1_000_000)
    assert WallTimer().time(lambda: None, 3).wall_ms == (5.0, 7.0, 9.0)


def test_it_agrees_with_torchs_own_timer() -> None:
    left, right = torch.randn(256, 256), torch.randn(256, 256)

    def product() -> torch.Tensor:
        return left @ right

    theirs = benchmark.Timer("product()", globals={"product": product}, num_threads=torch.get_num_threads())
    rounds = take_turns(
        {
            "ours": lambda: min(WallTimer().time(product, 20).wall_ms),
            "theirs": lambda: min(theirs.timeit(5).median for _ in range(4)) * 1e3,
        },
        lambda _: False, at_least=15, at_most=15,
    )  # fmt: skip
    ours, others = (min(each[name] for each in rounds) for name in ("ours", "theirs"))
    assert ours == pytest.approx(others, rel=0.15)


def test_an_injected_slow_down_is_seen() -> None:
    """30 % more work must show as a ratio that excludes 1."""
    timer = WallTimer()
    runs = {"base": lambda: timer.time(lambda: busy(1e-3), 5), "slow": lambda: timer.time(lambda: busy(1.3e-3), 5)}
    rounds = take_turns(runs, lambda _: False, at_least=16, at_most=16)
    base, slow = ([statistics.median(each[name].wall_ms) for each in rounds] for name in ("base", "slow"))
    ratio = pair_ratio(base, slow)
    assert ratio.interval is not None
    assert ratio.interval.high < 0.95
    assert ratio.value == pytest.approx(1 / 1.3, rel=0.1)


def test_the_garbage_collector_stays_out_and_comes_back() -> None:
    seen: list[bool] = []
    WallTimer().time(lambda: seen.append(gc.isenabled()), 3)
    assert seen == [False] * 3
    assert gc.isenabled()


def test_the_garbage_collector_comes_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        WallTimer().time(lambda: 1 / 0, 1)
    assert gc.isenabled()


class FakeCuda:
    """Writes down what is asked of torch.cuda, in order; events are a millisecond apart."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.now = 0.0
        fake = self

        class Event:
            def __init__(self, *, enable_timing: bool = False) -> None:
                assert enable_timing

            def record(self) -> None:
                fake.log.append("record")
                fake.now += 1.0
                self.at = fake.now

            def elapsed_time(self, other: Event) -> float:
                assert fake.log[-1] == "synchronize", "read before the device was done"
                return other.at - self.at

        self.Event = Event

    def synchronize(self, device: torch.device) -> None:
        self.log.append("synchronize")

    def call(self) -> None:
        self.log.append("call")
        self.now += 5.0

    class device:
        def __init__(self, _device: torch.device) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    for name in ("Event", "synchronize", "device"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    return fake


def test_cuda_passes_are_bracketed_by_events_and_read_after_one_synchronise(cuda: FakeCuda) -> None:
    block = CudaTimer(torch.device("cuda")).time(cuda.call, 3)
    assert block.device_ms == (6.0, 6.0, 6.0)
    events = cuda.log[: cuda.log.index("synchronize", 1) + 1]
    assert events == ["synchronize", *["record", "call", "record"] * 3, "synchronize"]


def test_cuda_wall_time_synchronises_after_every_pass(cuda: FakeCuda) -> None:
    block = CudaTimer(torch.device("cuda")).time(cuda.call, 2)
    assert len(block.wall_ms) == 2
    assert cuda.log[-5:] == ["synchronize", "call", "synchronize", "call", "synchronize"]


def test_each_device_gets_its_timer() -> None:
    assert timer_for(torch.device("cpu")).method == "wall"
    assert timer_for(torch.device("cuda", 0)).method == "cuda_event"
