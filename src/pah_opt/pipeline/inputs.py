"""The images a recipe may look at, cut into parts that never overlap: calibration, training, held out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pah_opt.data import as_data, calibration_split, check_fit, resized_processor, validation_split
from pah_opt.errors import DataError
from pah_opt.models.supply import FEWEST_IMAGES

if TYPE_CHECKING:
    from pah_opt.pipeline.subject import Subject
    from pah_opt.splits import Split

HELD_OUT_IMAGES = 128
"""Images for the collapse check: enough to tell a working classifier from chance, few enough to be quick."""


@dataclass(frozen=True)
class Inputs:
    """Training images cut into parts.

    Test images serve for nothing but the collapse check, and only when there are no training images.

    Args:
        training: for training steps; None when there are no training images.
        calibration: a class-balanced part of ``training``.
        held_out: labelled images that no step sees.
        class_names: names of the classes; empty without data.
        processor: the model's image processor, where the caller gave one; else that of the images counts.
    """

    training: Split | None
    calibration: Split | None
    held_out: Split | None
    class_names: tuple[str, ...]
    processor: Any = None

    @classmethod
    def of(cls, data: Any, *, calibration_images: int, seed: int, processor: Any = None) -> Inputs:
        """Cut user data into parts.

        Raises:
            DataError: the data cannot be used.
        """
        if data is None:
            return cls(None, None, None, (), processor)
        parts = as_data(data)
        if parts.train is None:
            return cls(None, None, _spread(parts.test, HELD_OUT_IMAGES), parts.test.class_names, processor)
        training, held_out = _hold_out(parts.train, seed)
        calibration = calibration_split(training, min(calibration_images, len(training)), seed)
        return cls(training, calibration, held_out, parts.test.class_names, processor)

    def check(self, subject: Subject) -> None:
        """Check that images and labels fit the model's input and head.

        Raises:
            DataError: they do not, names both sides; or the processor makes no fixed size.
        """
        self.processor_at(subject.layout.image_size)
        for split in (self.held_out, self.calibration):
            if split is not None:
                check_fit(split, subject.layout, model=subject.model)

    def calibration_at(self, size: tuple[int, int]) -> Split | None:
        """Return the calibration images preprocessed for this input size."""
        return None if self.calibration is None else self.calibration.resized(*size)

    def processor_at(self, size: tuple[int, int]) -> dict[str, Any] | None:
        """Return the image processor's configuration for this input size, as JSON data; None where there is none.

        Raises:
            DataError: the processor's output size depends on the image.
        """
        found = self.processor or getattr(self.held_out, "processor", None)
        return None if found is None else json.loads(resized_processor(found, *size).to_json_string())

    def training_at(self, size: tuple[int, int]) -> Split | None:
        """Return the training images preprocessed for this input size."""
        return None if self.training is None else self.training.resized(*size)


def _hold_out(train: Split, seed: int) -> tuple[Split, Split]:
    """Cut training images into those that steps see and those that none sees."""
    share = min(0.2, HELD_OUT_IMAGES / max(1, len(train)))
    try:
        return validation_split(train, share, seed)
    except DataError as error:
        raise DataError(
            f"{error}: a recipe calibrates and trains on some training images and holds others out, for the check "
            f"after each step; give at least {FEWEST_IMAGES * 2}, two or more of a class"
        ) from error


def _spread(split: Split, count: int) -> Split:
    """Take ``count`` images at even distances, so that a split sorted by class still gives every class."""
    return split if len(split) <= count else split.subset([i * len(split) // count for i in range(count)])
