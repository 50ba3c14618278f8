"""Accuracy at chance after a step is an error by default: the classic silent damage, caught where it happens."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pah_opt.errors import AccuracyCollapseError, DataError
from pah_opt.measure.accuracy import Predictions, at_chance, predict

if TYPE_CHECKING:
    from pah_opt.artifact import WeightsOrigin
    from pah_opt.pipeline.subject import Subject
    from pah_opt.splits import Split

OnCollapse = Literal["error", "warn", "ignore"]

TRAINED = frozenset({"pretrained", "fine-tuned"})
"""Weights that should be better than chance on the images they belong to; of others nobody said anything."""
FEWEST_TO_REFUSE = 50
"""Held-out images from which a model that was trained is refused: on fewer, a weak one looks like chance."""
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
        active: False when the dense model itself is at chance, so that there is nothing to lose.
    """

    split: Split | None
    on_collapse: OnCollapse
    active: bool

    @classmethod
    def for_model(
        cls, subject: Subject, split: Split | None, on_collapse: OnCollapse, weights_origin: WeightsOrigin = "unknown"
    ) -> CollapseCheck:
        """Prepare the check, switched off when there are no images or the dense model is at chance already.

        Raises:
            DataError: it is at chance although its weights were trained, and ``on_collapse`` is ``error``.
        """
        if split is None or on_collapse == "ignore":
            return cls(split, on_collapse, active=False)
        predictions = _predictions(subject, split)
        lost = at_chance(predictions, len(split.class_names))
        if lost and weights_origin in TRAINED and len(split) >= FEWEST_TO_REFUSE:
            message = (
                f"the model is at chance on these images before any step: top-1 {predictions.top1:.1%} of {len(split)} "
                f"held-out images, {len(split.class_names)} classes. Its head, the labels or the preprocessing do not "
                "belong to it; adapt it to the images first (pah_opt.adapt), or set on_collapse to warn or ignore"
            )
            if on_collapse == "error":
                raise DataError(message)
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        return cls(split, on_collapse, active=not lost)

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
