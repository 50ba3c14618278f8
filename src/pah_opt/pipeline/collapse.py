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
"""Weights that should be better than chance on the images they belong to."""
FEWEST_TO_TELL = 50
"""Held-out images from which a model at chance is spoken of: on fewer, a weak one looks like chance."""
CAUSES = (
    "likely causes: the step is too strong without repair or recovery (lower its ratio, calibrate, or add a recover "
    "step after it); per-tensor static int8; a head, labels or preprocessing that do not belong to this model"
)

BELONGS = (
    "Its head, the labels or the preprocessing do not belong to it; adapt it to the images first (pah_opt.adapt), or "
    "set on_collapse to warn or ignore"
)
UNKNOWN = (
    "What a step damages cannot be seen in it. If it was trained, its head, the labels or the preprocessing do not "
    "belong to it (weights_origin='pretrained' refuses it); weights_origin='random' or on_collapse='ignore' says that "
    "this is as it should be"
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

        A model at chance is refused where its weights are said to be trained, taken where they are said to be random,
        and warned of where nobody said: the damage of no step can be seen in it.

        Raises:
            DataError: it is at chance although its weights were trained, and ``on_collapse`` is ``error``.
        """
        if split is None or on_collapse == "ignore":
            return cls(split, on_collapse, active=False)
        predictions = _predictions(subject, split)
        lost = at_chance(predictions, len(split.class_names))
        if lost and weights_origin != "random" and len(split) >= FEWEST_TO_TELL:
            message = (
                f"the model is at chance on these images before any step: top-1 {predictions.top1:.1%} of {len(split)} "
                f"held-out images, {len(split.class_names)} classes. "
            )
            if weights_origin in TRAINED and on_collapse == "error":
                raise DataError(message + BELONGS)
            warnings.warn(message + (BELONGS if weights_origin in TRAINED else UNKNOWN), RuntimeWarning, stacklevel=2)
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
