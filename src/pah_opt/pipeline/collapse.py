"""Accuracy at chance after a step is an error by default: the classic silent damage, caught where it happens."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pah_opt.errors import AccuracyCollapseError
from pah_opt.measure.accuracy import Predictions, at_chance, predict

if TYPE_CHECKING:
    from pah_opt.pipeline.subject import Subject
    from pah_opt.splits import Split

OnCollapse = Literal["error", "warn", "ignore"]

CAUSES = (
    "likely causes: the step is too strong without repair or recovery (lower its ratio, calibrate, or add a recover "
    "step after it); per-tensor static int8; a head, labels or preprocessing that do not belong to this model"
)


@dataclass(frozen=True)
class CollapseCheck:
    """Looks at a few held-out, labelled images after each step.

    Args:
        split: images that no step calibrates or trains on; None when there are none.
        on_collapse: what to do when the model is at chance.
        active: False when the dense model itself is at chance (random weights), so that there is nothing to lose.
    """

    split: Split | None
    on_collapse: OnCollapse
    active: bool

    @classmethod
    def for_model(cls, subject: Subject, split: Split | None, on_collapse: OnCollapse) -> CollapseCheck:
        """Prepare the check, switched off when there are no images or the dense model is at chance already."""
        if split is None or on_collapse == "ignore":
            return cls(split, on_collapse, active=False)
        return cls(split, on_collapse, active=not at_chance(_predictions(subject, split), len(split.class_names)))

    def after_step(self, index: int, name: str, subject: Subject) -> dict[str, Any]:
        """Measure top-1 on the held-out images; return it with their number, or nothing when inactive.

        Raises:
            AccuracyCollapseError: the model is at chance and ``on_collapse`` is ``error``.
        """
        if not self.active or self.split is None:
            return {}
        split = self.split.resized(*subject.layout.image_size)
        predictions = _predictions(subject, split)
        if at_chance(predictions, len(split.class_names)):
            error = AccuracyCollapseError(
                index,
                name,
                f"the model is at chance after it: top-1 {predictions.top1:.1%} of {len(split)} held-out "
                f"images, {len(split.class_names)} classes; {CAUSES}",
            )
            if self.on_collapse == "error":
                raise error
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
        return {"held_out_top1": predictions.top1, "held_out_images": len(split)}


def _predictions(subject: Subject, split: Split) -> Predictions:
    return predict(subject.model, subject.adapter, split)
