"""Two models on the same images: what changed, and whether it is more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pah_opt.errors import MeasurementError
from pah_opt.measure.statistics import Interval, paired_difference_interval, sign_test_p

if TYPE_CHECKING:
    from pah_opt.measure.accuracy import Predictions


@dataclass(frozen=True)
class Paired:
    """A model against its baseline on the same images.

    Args:
        top1_delta_pp: top-1 of the model minus top-1 of the baseline, in percentage points (negative: a loss).
        top1_ci95_pp: 95 % score interval of that difference; with no flip at all it is as wide as the images are few.
        flips_to_wrong: images that only the baseline gets right.
        flips_to_right: images that only the model gets right.
        mcnemar_p: exact two-sided p-value of McNemar's test on the flips.
        agreement: share of images to which both give the same answer, 0 to 1.
    """

    top1_delta_pp: float
    top1_ci95_pp: Interval
    flips_to_wrong: int
    flips_to_right: int
    mcnemar_p: float
    agreement: float


def compare_predictions(model: Predictions, baseline: Predictions) -> Paired:
    """Compare a model with its baseline, image by image.

    Args:
        model: predictions of the model.
        baseline: predictions of the baseline on the same images.

    Raises:
        MeasurementError: the predictions are of different images.

    References:
        McNemar's test: https://doi.org/10.1007/BF02295996.
    """
    _check_same_images(model, baseline)
    count = len(model)
    to_right = int(np.sum(model.correct & ~baseline.correct))
    to_wrong = int(np.sum(~model.correct & baseline.correct))
    return Paired(
        top1_delta_pp=100.0 * (to_right - to_wrong) / count,
        top1_ci95_pp=_in_points(paired_difference_interval(to_right, to_wrong, count)),
        flips_to_wrong=to_wrong,
        flips_to_right=to_right,
        mcnemar_p=sign_test_p(to_right, to_right + to_wrong),
        agreement=float(np.mean(model.predicted == baseline.predicted)),
    )


def _check_same_images(model: Predictions, baseline: Predictions) -> None:
    if model.fingerprint != baseline.fingerprint or not np.array_equal(model.labels, baseline.labels):
        raise MeasurementError(
            f"the two models were judged on different images ({len(model)} of {model.fingerprint[:12]} and "
            f"{len(baseline)} of {baseline.fingerprint[:12]}); a paired comparison needs the same split for both"
        )


def _in_points(shares: Interval) -> Interval:
    return Interval(100.0 * shares.low, 100.0 * shares.high)
