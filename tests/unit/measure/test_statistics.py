from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pah_opt.measure.statistics import binomial_tail, median_interval, percentile, sign_test_p


@given(st.integers(1, 40), st.integers(0, 40), st.floats(0.01, 0.99))
def test_binomial_tail_is_the_sum_of_its_terms(trials: int, successes: int, probability: float) -> None:
    exact = sum(
        math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k) for k in range(successes, trials + 1)
    )
    assert binomial_tail(successes, trials, probability) == pytest.approx(min(1.0, exact), rel=1e-9, abs=1e-12)


def test_binomial_tail_does_not_overflow() -> None:
    assert binomial_tail(1100, 10_000, 0.1) == pytest.approx(5e-4, rel=0.1)
    assert binomial_tail(9_999, 10_000, 0.1) == 0.0


@pytest.mark.parametrize("level", [0.95, 0.99])
def test_median_interval_holds_for_any_distribution(level: float) -> None:
    random = np.random.default_rng(5)
    for count in (8, 13, 30):
        samples = np.exp(random.normal(size=(1500, count)) * 2)  # median 1, very long tail
        intervals = [median_interval(list(row), level) for row in samples]
        covered = np.mean([interval is not None and interval.covers(1.0) for interval in intervals])
        assert covered >= level - 0.012


@pytest.mark.parametrize(("level", "needed"), [(0.95, 6), (0.99, 8)])
def test_too_few_values_have_no_interval(level: float, needed: int) -> None:
    assert median_interval(range(needed - 1), level) is None
    assert median_interval(range(needed), level) == (0, needed - 1)


@given(st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=50))
def test_median_interval_holds_the_median(values: list[float]) -> None:
    interval = median_interval(values)
    assert interval is not None
    assert interval.covers(float(np.median(values)))


def test_sign_test_is_symmetric() -> None:
    assert sign_test_p(2, 9) == sign_test_p(7, 9)
    assert sign_test_p(0, 0) == 1.0


def test_percentiles_need_enough_samples() -> None:
    assert percentile(range(99), 90, at_least=100) is None
    assert percentile(range(101), 90, at_least=100) == 90
