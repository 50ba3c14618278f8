from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from pah_opt.measure.settings import MeasureSettings
from pah_opt.measure.timer import Block, Call, Timer, WallTimer
from pah_opt.measure.warmup import warm_up


class Scripted(Timer):
    """Says how long calls took from a list; the last entry repeats."""

    method = "wall"

    def __init__(self, times: Sequence[float]) -> None:
        self.times = list(times)
        self.calls = 0

    def time(self, call: Call, iterations: int) -> Block:
        times = self.wall_ms(call, iterations)
        return Block(times, times)

    def synchronize(self) -> None:
        pass

    def wall_ms(self, call: Call, iterations: int = 1) -> tuple[float, ...]:
        taken = tuple(self.times[min(self.calls + i, len(self.times) - 1)] for i in range(iterations))
        self.calls += iterations
        return taken


def settings(**changes: float) -> MeasureSettings:
    return MeasureSettings.of(**{"warmup_s": 0.0, "warmup_limit_s": 5.0, **changes})


def test_the_first_call_is_reported_apart() -> None:
    found = warm_up(lambda: None, Scripted([900.0, 10.0]), settings())
    assert (found.first_call_ms, found.typical_ms) == (900.0, 10.0)
    assert found.compile_s is None


def test_at_least_the_asked_iterations_are_made() -> None:
    assert warm_up(lambda: None, Scripted([5.0]), settings(warmup_iters=17)).iterations >= 17


def test_warm_up_lasts_until_times_settle() -> None:
    falling = [100.0 * 0.9**i + 10 for i in range(60)]
    found = warm_up(lambda: None, Scripted(falling), settings())
    assert found.settled
    assert found.iterations > 25


def test_warm_up_lasts_at_least_the_asked_time() -> None:
    found = warm_up(lambda: None, WallTimer(), settings(warmup_s=0.05))
    assert found.iterations > 100


def test_times_that_never_settle_are_said_to() -> None:
    class Restless(Scripted):
        def wall_ms(self, call: Call, iterations: int = 1) -> tuple[float, ...]:
            self.calls += 1
            return (2.0 ** (self.calls % 1000),)  # however many calls fit into the time

    assert not warm_up(lambda: None, Restless([]), settings(warmup_limit_s=1e-3)).settled


@pytest.mark.slow
def test_compile_time_is_seen_and_reported() -> None:
    torch._dynamo.reset()
    model = torch.compile(nn.Sequential(nn.Linear(7, 5), nn.GELU()))
    pixels = torch.zeros(2, 7)
    with torch.inference_mode():
        found = warm_up(lambda: model(pixels), WallTimer(), settings())
        again = warm_up(lambda: model(pixels), WallTimer(), settings())
    assert found.compiled
    assert found.compile_s is not None
    assert found.compile_s > 10 * found.typical_ms / 1e3
    assert not again.compiled
