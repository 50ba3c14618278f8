from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pah_opt.errors import MeasurementError
from pah_opt.measure.accuracy import Predictions
from pah_opt.measure.paired import compare_predictions

if TYPE_CHECKING:
    from collections.abc import Sequence


def right(pattern: Sequence[bool]) -> Predictions:
    """Predictions that are right where ``pattern`` says; wrong answers are all the same."""
    labels = np.zeros(len(pattern), dtype=np.int64)
    predicted = np.where(np.array(pattern), 0, 1)
    return Predictions(labels, predicted, None, np.ones(len(pattern)), np.zeros(len(pattern)), 2, "same")


def mixed(both: int, lost: int, won: int, neither: int) -> tuple[Predictions, Predictions]:
    base = [True] * both + [True] * lost + [False] * won + [False] * neither
    own = [True] * both + [False] * lost + [True] * won + [False] * neither
    return right(own), right(base)


def test_flips_and_delta() -> None:
    found = compare_predictions(*mixed(80, 6, 2, 12))
    assert (found.flips_to_wrong, found.flips_to_right) == (6, 2)
    assert found.top1_delta_pp == pytest.approx(-4.0)
    assert found.agreement == pytest.approx(0.92)


def test_mcnemar_is_exact() -> None:
    """Two of eight flips to the right: twice the lower tail of a fair coin."""
    expected = 2 * sum(math.comb(8, k) for k in range(3)) / 2**8
    assert compare_predictions(*mixed(80, 6, 2, 12)).mcnemar_p == pytest.approx(expected)
    assert compare_predictions(*mixed(80, 3, 3, 14)).mcnemar_p == 1.0
    assert compare_predictions(*mixed(90, 0, 0, 10)).mcnemar_p == 1.0


def test_interval_holds_the_delta() -> None:
    interval = compare_predictions(*mixed(800, 60, 20, 120)).top1_ci95_pp
    assert interval.low < -4.0 < interval.high < 0


def test_interval_agrees_with_the_normal_approximation() -> None:
    found = compare_predictions(*mixed(800, 60, 20, 120)).top1_ci95_pp
    share = 0.06 + 0.02 - 0.04**2
    half = 1.96 * 100 * math.sqrt(share / 1000)
    assert (found.low, found.high) == pytest.approx((-4 - half, -4 + half), abs=0.15)


def test_interval_covers_the_truth() -> None:
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(100):
        base, own = random.random(400) < 0.9, random.random(400) < 0.9
        interval = compare_predictions(right(own), right(base)).top1_ci95_pp
        covered += interval.covers(0.0)
    assert covered >= 90


@pytest.mark.parametrize(("images", "open_pp"), [(450, 0.85), (100, 3.7), (1, 79.3)])
def test_no_flip_is_no_proof_of_no_difference(images: int, open_pp: float) -> None:
    found = compare_predictions(*mixed(images, 0, 0, 0))
    assert (found.top1_delta_pp, found.agreement) == (0.0, 1.0)
    assert found.top1_ci95_pp == pytest.approx((-open_pp, open_pp), abs=0.05)


@pytest.mark.parametrize("change", [{"fingerprint": "other"}, {"labels": np.ones(10, dtype=np.int64)}])
def test_other_images_are_refused(change: dict[str, object]) -> None:
    own, base = mixed(10, 0, 0, 0)
    with pytest.raises(MeasurementError, match="judged on different images"):
        compare_predictions(own, replace(base, **change))  # type: ignore[arg-type]


def test_every_mcnemar_p_is_a_probability() -> None:
    for lost, won in itertools.product(range(6), repeat=2):
        assert 0 < compare_predictions(*mixed(5, lost, won, 5)).mcnemar_p <= 1
