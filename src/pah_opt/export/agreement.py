"""Does what was made answer as the artifact does? Asked of its own runtime, at several batch sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from pah_opt.artifact.examples import compute_logits
from pah_opt.errors import ExportError
from pah_opt.export.lowering import int8_layers
from pah_opt.export.tracing import classifier_of, first_line
from pah_opt.models.state import stored_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pah_opt.export.lowering import Rounding
    from pah_opt.export.subject import Subject

EXACT = 1e-3
ROUNDED = 0.02
HALF = 0.05
SPREAD = 1.5
"""Two runs that each stray by the effect of rounding are seldom further apart than this times it."""
LARGEST = 0.25
"""However much rounding does to a model, a wrong graph does more."""
LEAD = 1.5
"""A class may lose its lead to another when that was at most so many tolerances: both logits may be off, seldom both by
all of it and to opposite sides."""
OTHER_BATCHES = (1, 5)
"""Batch sizes that are tried beside that of the stored examples."""


class Agreement(NamedTuple):
    """How well an exported model agrees with its artifact.

    Args:
        tolerance: largest difference of a logit that is accepted, as a share of the largest logit.
        difference: largest difference that was found, as a share of the largest logit.
        top1: share of images with the same predicted class, 0 to 1.
        batch_sizes: that were run.
        images: that were compared.
    """

    tolerance: float
    difference: float
    top1: float
    batch_sizes: tuple[int, ...]
    images: int


def tolerance_for(subject: Subject) -> float:
    """Return the accepted difference, as a share of the largest logit.

    Without rounding there is next to none. Where tokens are rounded to int8, by the artifact or by a runtime of its own
    accord, a last bit decides here and there about a whole step, and after a dozen blocks two correct runs differ as
    much as rounding itself changes the logits: so that is measured, on this very model, and allowed.
    """
    if any(True for _ in int8_layers(subject.model)):
        return min(max(ROUNDED, SPREAD * rounding_effect(subject)), LARGEST)
    if subject.dtype == "bf16":
        return HALF
    rounds = subject.dtype != "fp32" or any(stored_type(module) for module in subject.model.modules())
    return ROUNDED if rounds else EXACT


def rounding_effect(subject: Subject) -> float:
    """Return how much rounding every token to int8 changes the logits, as a share of the largest logit."""
    found = []
    roundings: tuple[Rounding, ...] = ("none", "tokens")
    for rounding in roundings:
        classifier = classifier_of(subject, "torch", rounding=rounding)
        with torch.no_grad():
            found.append(classifier(subject.examples.pixel_values.float()))
    plain, rounded = found
    return float((plain - rounded).abs().max() / plain.abs().max().clamp_min(1e-6))


def compare(subject: Subject, run: Callable[[NDArray[Any]], NDArray[Any]]) -> Agreement:
    """Run an exported model on the stored examples and on batches of other sizes.

    Raises:
        ExportError: it cannot be run, differs by more than the tolerance, or predicts other classes.
    """
    tolerance = tolerance_for(subject)
    differences, same, sizes = [], [], []
    for pixels, wanted in _batches(subject):
        logits = _run(run, pixels, wanted.shape)
        largest = max(float(np.abs(wanted).max()), 1e-6)
        differences.append(float(np.abs(logits - wanted).max()) / largest)
        same.append(_same_class(logits, wanted))
        sizes.append(len(pixels))
    if not max(differences) <= tolerance:  # NaN is no agreement either
        raise ExportError(
            f"what was made gives other logits than the artifact: they differ by up to {max(differences):.3g} of the "
            f"largest logit, {tolerance:g} is allowed; nothing was kept"
        )
    together = np.concatenate(same)
    refuse_other_classes(together, tolerance)
    return Agreement(tolerance, max(differences), float(np.mean(together == 0.0)), tuple(sizes), len(together))


def _same_class(logits: NDArray[Any], wanted: NDArray[Any]) -> NDArray[Any]:
    """Return how far behind the best class the predicted one was, as a share of the largest logit; 0 for the same."""
    chosen = np.take_along_axis(wanted, logits.argmax(axis=1)[:, None], axis=1)[:, 0]
    behind: NDArray[Any] = (wanted.max(axis=1) - chosen) / max(float(np.abs(wanted).max()), 1e-6)
    return behind


def refuse_other_classes(behind: NDArray[Any], tolerance: float) -> None:
    """Refuse other predictions, unless two classes were so close that neither is more right than the other.

    Args:
        behind: how far behind the best class the predicted one was, for each image, as a share of the largest logit.
        tolerance: see :class:`Agreement`.

    Raises:
        ExportError: an image is given another class, and not by a hair.
    """
    wrong = int((behind > LEAD * tolerance).sum())
    if wrong:
        raise ExportError(f"what was made predicts other classes for {wrong} of {len(behind)} images; nothing was kept")


def _batches(subject: Subject) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield pixels and the logits that belong to them: those stored, then others that the model computes now."""
    stored = subject.examples
    yield stored.pixel_values.float().numpy(), stored.logits.float().numpy()
    model = subject.private_copy()
    for size in OTHER_BATCHES:
        generator = torch.Generator().manual_seed(size)
        pixels = torch.randn((size, *subject.image_shape), generator=generator, device="cpu")
        yield pixels.numpy(), compute_logits(model, subject.adapter, pixels).float().numpy()


def _run(run: Callable[[NDArray[Any]], NDArray[Any]], pixels: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        logits = run(pixels)
    except Exception as error:  # each engine raises types of its own
        raise ExportError(f"what was made does not run with {len(pixels)} images: {first_line(error)}") from error
    if logits.shape != shape:
        raise ExportError(f"what was made gives logits of shape {logits.shape}, the artifact gives {shape}")
    return logits
