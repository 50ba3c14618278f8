from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pah_opt.measure.rounds import PairRatio, pair_ratio, take_turns
from pah_opt.measure.timer import WallTimer


def noisy_times(random: np.random.Generator, sigma: float) -> Iterator[float]:
    """Yield times of one and the same model on a machine that drifts and stutters."""
    drift = 0.0
    while True:
        drift = 0.9 * drift + random.normal(0, sigma)
        stutter = 1 + random.exponential(0.5) if random.random() < 0.1 else 1.0
        yield float(np.exp(drift + random.normal(0, sigma)) * stutter)


def measured_ratio(times: Iterator[float], width: float) -> PairRatio:
    def narrow(rounds: object) -> bool:
        return ratio_of(rounds).relative_width < width

    def ratio_of(rounds: object) -> PairRatio:
        return pair_ratio([r["a"] for r in rounds], [r["b"] for r in rounds])  # type: ignore[attr-defined]

    turns = {"a": lambda: next(times), "b": lambda: next(times)}
    return ratio_of(take_turns(turns, narrow, at_least=3, wanted=8, at_most=60))


@pytest.mark.parametrize("sigma", [0.003, 0.01, 0.05])
def test_two_identical_models_come_out_equal(sigma: float) -> None:
    """The interval covers 1 in at least 95 of 100 trials, although rounds end when it is narrow."""
    random = np.random.default_rng(11)
    trials = [measured_ratio(noisy_times(random, sigma), 0.02) for _ in range(100)]
    assert sum(trial.interval is not None and trial.interval.covers(1.0) for trial in trials) >= 95


@pytest.mark.slow
def test_two_identical_real_calls_come_out_equal() -> None:
    """The same with a real clock, on a machine that may be busy."""
    weight, pixels = torch.randn(128, 128), torch.randn(32, 128)
    timer = WallTimer()

    def turn() -> float:
        return float(np.median(timer.wall_ms(lambda: pixels @ weight, 8)))

    covered = 0
    for seed in range(100):
        rounds = take_turns({"a": turn, "b": turn}, lambda _: False, at_least=12, at_most=12, seed=seed)
        ratio = pair_ratio([r["a"] for r in rounds], [r["b"] for r in rounds])
        covered += ratio.interval is not None and ratio.interval.covers(1.0)
    assert covered >= 95


def test_a_real_difference_is_not_covered() -> None:
    random = np.random.default_rng(2)
    times = noisy_times(random, 0.01)
    turns = {"a": lambda: next(times), "b": lambda: 0.8 * next(times)}
    rounds = take_turns(turns, lambda _: False, at_least=40, at_most=40)
    ratio = pair_ratio([r["a"] for r in rounds], [r["b"] for r in rounds])
    assert ratio.interval is not None
    assert ratio.interval.covers(1.25)
    assert not ratio.interval.covers(1.0)


def test_a_drift_favours_nobody() -> None:
    """A machine that gets slower all the time: whoever runs second in every round would look slow."""
    clock = iter(range(1000))
    turns = {"a": lambda: 1.0 + 0.01 * next(clock), "b": lambda: 1.0 + 0.01 * next(clock)}
    rounds = take_turns(turns, lambda _: False, at_least=40, at_most=40)
    ratio = pair_ratio([r["a"] for r in rounds], [r["b"] for r in rounds])
    assert ratio.value == pytest.approx(1.0, abs=0.002)


def test_everyone_has_one_turn_a_round_and_orders_reverse() -> None:
    log: list[str] = []
    names = ("a", "b", "c")
    take_turns({n: (lambda n=n: log.append(n)) for n in names}, lambda _: False, at_least=6, at_most=6)
    orders = [log[start : start + 3] for start in range(0, 18, 3)]
    assert all(sorted(order) == list(names) for order in orders)
    assert all(orders[i + 1] == orders[i][::-1] for i in (0, 2, 4))


def test_rounds_end_when_there_is_enough() -> None:
    assert len(take_turns({"a": lambda: 0}, lambda rounds: len(rounds) >= 5, at_least=3, at_most=50)) == 5
    assert len(take_turns({"a": lambda: 0}, lambda _: True, at_least=3, wanted=9, at_most=50)) == 9
    assert len(take_turns({"a": lambda: 0}, lambda _: False, at_least=3, at_most=7)) == 7


def test_a_time_limit_ends_rounds_but_not_before_the_least() -> None:
    slow = {"a": lambda: time.sleep(0.02)}
    assert len(take_turns(slow, lambda _: False, at_least=3, wanted=50, at_most=50, limit_s=0.0)) == 3


def test_few_rounds_have_no_interval() -> None:
    ratio = pair_ratio([2.0] * 7, [1.0] * 7)
    assert (ratio.value, ratio.interval, ratio.relative_width) == (2.0, None, float("inf"))


def test_the_order_is_seeded() -> None:
    def order(seed: int) -> list[str]:
        log: list[str] = []
        take_turns({n: (lambda n=n: log.append(n)) for n in "abcde"}, lambda _: False, at_least=4, at_most=4, seed=seed)
        return log

    assert order(1) == order(1) != order(2)
