from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pah_opt.measure.statistics import (
    binomial_tail,
    median_interval,
    paired_difference_interval,
    percentile,
    sign_test_p,
)


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


@pytest.mark.parametrize(
    ("to_right", "to_wrong", "count", "level", "low", "high"),
    [
        (0, 1, 44, 0.90, -0.096, 0.037),  # Tango 1998, contact lenses
        (12, 2, 50, 0.95, 0.061, 0.345),  # Newcombe 1998
        (16, 8, 86, 0.95, -0.020, 0.207),  # Agresti and Min 2005
        (1, 7, 21, 0.95, -0.517, -0.026),  # Fagerland and others 2014
    ],
)
def test_paired_interval_agrees_with_published_examples(
    to_right: int, to_wrong: int, count: int, level: float, low: float, high: float
) -> None:
    assert paired_difference_interval(to_right, to_wrong, count, level) == pytest.approx((low, high), abs=6e-4)


def coverage(right: float, wrong: float, count: int) -> float:
    """How often the interval covers the truth, summed over all counts that are likely."""
    covered = 0.0
    for k, m in itertools.product(range(26), repeat=2):
        chances = math.comb(count, k) * math.comb(count - k, m) * right**k * wrong**m
        interval = paired_difference_interval(k, m, count)
        covered += interval.covers(right - wrong) * chances * (1 - right - wrong) ** (count - k - m)
    return covered


@pytest.mark.parametrize("count", [100, 450, 2000])
@pytest.mark.parametrize("share_to_right", [0.0, 0.5])
def test_paired_interval_covers_the_truth_where_few_images_flip(count: int, share_to_right: float) -> None:
    for flips in (0.2, 1.0, 2.0, 4.0, 5.0):
        right = share_to_right * flips / count
        assert 0.93 < coverage(right, flips / count - right, count) <= 1.0


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 10_000))
def test_paired_interval_is_symmetric_and_holds_the_estimate(to_right: int, to_wrong: int, others: int) -> None:
    count = to_right + to_wrong + others
    low, high = paired_difference_interval(to_right, to_wrong, count)
    assert -1.0 < low < (to_right - to_wrong) / count < high < 1.0
    assert paired_difference_interval(to_wrong, to_right, count) == (-high, -low)


def test_paired_interval_stays_within_what_shares_can_be() -> None:
    assert paired_difference_interval(5, 0, 5).high == 1.0
    assert paired_difference_interval(0, 1, 1).low == -1.0


def test_paired_interval_is_wider_at_a_higher_level() -> None:
    assert paired_difference_interval(3, 1, 450, 0.99).width > paired_difference_interval(3, 1, 450).width
