"""How right a trial is, on growing parts of the validation images, until it is hopeless or all were looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pah_opt.measure.accuracy import Predictions, predict
from pah_opt.search.front import Point
from pah_opt.search.racing import Rivals, beyond_doubt, rungs, standard_error_pp
from pah_opt.search.records import Rung

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.layout import ModelAdapter
    from pah_opt.splits import Split

PART = "a part of the validation images"


@dataclass(frozen=True)
class Looked:
    """What was seen.

    Args:
        rungs: the drop on each part.
        top1: on the images that were looked at, 0 to 1.
        error_pp: standard error of the drop on the largest part.
        hopeless: why the rest was not looked at; None when all were.
    """

    rungs: tuple[Rung, ...]
    top1: float
    error_pp: float
    hopeless: str | None = None

    @property
    def drop_pp(self) -> float:
        """Top-1 lost on the largest part, in percentage points."""
        return self.rungs[-1].drop_pp


@dataclass(frozen=True)
class Looker:
    """Compares models with the dense one, image by image.

    Args:
        validation: the images, in an order of which any first part is balanced over the classes.
        dense: what the dense model answers.
        limit_pp: most top-1 that may be lost.
        racing: whether anything may be stopped early.
    """

    validation: Split
    dense: Predictions
    limit_pp: float
    racing: bool = True

    def look(self, model: nn.Module, adapter: ModelAdapter, cost: float | None, rivals: Rivals) -> Looked:
        """Judge a model.

        Args:
            model: of any input size.
            adapter: of the model.
            cost: the figure that is minimised, where it is known.
            rivals: what earlier trials showed.
        """
        split = self.validation.resized(*adapter.layout(model).image_size)
        right = np.zeros(0, dtype=bool)
        seen: list[Rung] = []
        for images in rungs(len(split)) if self.racing else (len(split),):
            part = split.subset(range(len(right), images))
            right = np.concatenate([right, predict(model, adapter, part, fingerprint=PART).correct])
            dense = self.dense.correct[:images]
            seen.append(Rung(images, 100.0 * float(dense.mean() - right.mean())))
            flips = int((dense != right).sum())
            hopeless = self._hopeless(seen[-1], flips, cost, rivals)
            if hopeless and images < len(split):
                break
        else:
            hopeless = None
        return Looked(tuple(seen), float(right.mean()), standard_error_pp(flips, len(right)), hopeless)

    def _hopeless(self, rung: Rung, flips: int, cost: float | None, rivals: Rivals) -> str | None:
        doubtless = beyond_doubt(rung.drop_pp, flips, rung.images, self.limit_pp)
        if doubtless or cost is None:
            return doubtless
        return rivals.outdone(rung.images, Point(cost, rung.drop_pp))
