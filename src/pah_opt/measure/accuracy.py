"""Accuracy, image by image: predictions are kept, so that two models are compared on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pah_opt.errors import DataError, MeasurementError, PahOptError
from pah_opt.measure.modes import evaluating
from pah_opt.measure.shadow import input_dtype
from pah_opt.measure.statistics import binomial_tail

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from pah_opt.layout import ModelAdapter
    from pah_opt.splits import Batch, Split

TOP5_CLASSES = 6
"""With fewer classes than this, five guesses are always right and top-5 says nothing."""
ECE_BINS = 15
"""Bins of the expected calibration error, as in Guo et al., https://arxiv.org/abs/1706.04599."""


@dataclass(frozen=True)
class Predictions:
    """What a model said about every image of a split.

    Args:
        labels: int64, ``(images,)``.
        predicted: the class with the highest logit, int64, ``(images,)``.
        top5_hits: whether the label is among the five highest logits, ``(images,)``; None with fewer than six classes.
        confidences: softmax probability of the predicted class, float64, ``(images,)``.
        nll: negative log-likelihood of the label in nats, float64, ``(images,)``.
        num_classes: width of the logits.
        fingerprint: of the images.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    top5_hits: NDArray[np.bool_] | None
    confidences: NDArray[np.float64]
    nll: NDArray[np.float64]
    num_classes: int
    fingerprint: str

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image was classified correctly, ``(images,)``."""
        return np.equal(self.predicted, self.labels)

    @property
    def top1(self) -> float:
        """Share of images classified correctly, 0 to 1."""
        return float(self.correct.mean())

    @property
    def top5(self) -> float | None:
        """Share of images with the label among five guesses, 0 to 1; None with fewer than six classes."""
        return None if self.top5_hits is None else float(self.top5_hits.mean())

    @property
    def ece(self) -> float:
        """Expected calibration error over 15 equal bins of confidence, 0 to 1."""
        bins = np.clip(np.ceil(self.confidences * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
        sums = np.bincount(bins, weights=self.correct - self.confidences, minlength=ECE_BINS)
        return float(np.abs(sums).sum() / len(self))


def predict(
    model: nn.Module,
    adapter: ModelAdapter,
    split: Split,
    *,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    fingerprint: str | None = None,
) -> Predictions:
    """Classify every image of ``split``.

    Args:
        model: a classifier; put into ``eval`` mode for the time being.
        adapter: takes the logits out of the model's output.
        split: labelled images, preprocessed for this model.
        batch_size: images per forward pass.
        device: where the images are sent; by default where the model is.
        fingerprint: of the images as they were before ``split`` was resized for this model, so that models with
            different input sizes can be compared image by image; by default the split's.

    Raises:
        DataError: there are no images, or labels do not fit the split's classes or the model's head.
        MeasurementError: the model failed, or its logits hold NaN or infinity.
    """
    if len(split) == 0:
        raise DataError(f"{split.name} holds no images; accuracy needs at least one")
    target = torch.device(device) if device is not None else _device_of(model)
    with evaluating(model), torch.inference_mode():
        rows = [_judge(logits, labels) for logits, labels in _logits(model, adapter, split, batch_size, target)]
    return _joined(rows, split, fingerprint)


@dataclass(frozen=True)
class _Judged:
    labels: Tensor
    predicted: Tensor
    top5: Tensor | None
    confidences: Tensor
    nll: Tensor
    num_classes: int


def _logits(
    model: nn.Module, adapter: ModelAdapter, split: Split, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    dtype = input_dtype(model)
    for batch in split.batches(batch_size):
        labels = _checked_labels(batch, split)
        logits = _forward(model, adapter, batch.pixel_values.to(device, dtype))
        yield _checked_logits(logits, labels, split), labels


def _forward(model: nn.Module, adapter: ModelAdapter, pixels: Tensor) -> Tensor:
    try:
        return adapter.logits(model(pixels)).float().cpu()
    except (PahOptError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a forward pass of foreign modules may raise anything
        raise MeasurementError(
            f"the forward pass of {type(model).__name__} failed on images of shape {tuple(pixels.shape)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _checked_labels(batch: Batch, split: Split) -> Tensor:
    labels = batch.labels.cpu()
    classes = len(split.class_names)
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"labels of {split.name} run from {int(labels.min())} to {int(labels.max())}, "
            f"its {classes} classes allow 0 to {classes - 1}; check that class names and labels belong together"
        )
    return labels


def _checked_logits(logits: Tensor, labels: Tensor, split: Split) -> Tensor:
    if logits.ndim != 2 or logits.shape[0] != labels.shape[0]:
        raise MeasurementError(
            f"the model returned logits of shape {tuple(logits.shape)} for {labels.shape[0]} images; "
            "accuracy needs (batch, classes)"
        )
    if logits.shape[1] != len(split.class_names):
        raise DataError(
            f"the model's head has {logits.shape[1]} classes, {split.name} has {len(split.class_names)}: "
            "their labels do not mean the same, and accuracy would be noise; fit a head for these classes, or choose "
            "the dataset it was trained for"
        )
    bad = int((~torch.isfinite(logits)).any(dim=1).sum())
    if bad:
        raise MeasurementError(
            f"the logits of {bad} of {logits.shape[0]} images hold NaN or infinity; "
            "check the weights and the input type (fp16 overflows where bf16 does not)"
        )
    return logits


def _judge(logits: Tensor, labels: Tensor) -> _Judged:
    logits = logits.double()
    log_probabilities = logits.log_softmax(dim=1)
    predicted = logits.argmax(dim=1)
    top5 = None
    if logits.shape[1] >= TOP5_CLASSES:
        top5 = (logits.topk(5, dim=1).indices == labels[:, None]).any(dim=1)
    nll = -log_probabilities.gather(1, labels[:, None]).squeeze(1)
    confidences = log_probabilities.gather(1, predicted[:, None]).squeeze(1).exp()
    return _Judged(labels, predicted, top5, confidences, nll, logits.shape[1])


def _joined(rows: list[_Judged], split: Split, fingerprint: str | None) -> Predictions:
    labels = torch.cat([row.labels for row in rows])
    if len(labels) != len(split):
        raise DataError(
            f"{split.name} announces {len(split)} images and gave {len(labels)}; check how it makes batches"
        )
    hits = [row.top5 for row in rows if row.top5 is not None]
    return Predictions(
        labels=labels.numpy(),
        predicted=torch.cat([row.predicted for row in rows]).numpy(),
        top5_hits=torch.cat(hits).numpy() if hits else None,
        confidences=torch.cat([row.confidences for row in rows]).numpy(),
        nll=torch.cat([row.nll for row in rows]).numpy(),
        num_classes=rows[0].num_classes,
        fingerprint=fingerprint or split.fingerprint,
    )


def joined(parts: Sequence[Predictions], rows: Sequence[int]) -> Predictions:
    """Put the predictions on parts of a split together, in the order of its images.

    Args:
        parts: what a model said about each part; at least one.
        rows: the place of each image in the whole split, part after part.
    """
    order = np.argsort(rows)

    def whole(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])[order]

    return Predictions(
        labels=whole("labels"),
        predicted=whole("predicted"),
        top5_hits=None if parts[0].top5_hits is None else whole("top5_hits"),
        confidences=whole("confidences"),
        nll=whole("nll"),
        num_classes=parts[0].num_classes,
        fingerprint=parts[0].fingerprint,
    )


def _device_of(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))


def at_chance(predictions: Predictions, num_classes: int, *, level: float = 0.001) -> bool:
    """Tell whether a model cannot be told from one that answers without looking at the image.

    Such a model is right as often as its answers and the labels coincide by accident: ``sum(p(label=c) p(answer=c))``,
    which is ``1 / num_classes`` for balanced classes and the share of one class for a model that always answers it. A
    one-sided binomial test asks how likely at least the seen number of correct answers is then.

    Args:
        predictions: of labelled images.
        num_classes: classes to choose from.
        level: largest probability at which "better than chance" is believed.

    Returns:
        False also where the images cannot tell: fewer than two classes, or so few images that not even a perfect
        score would be better than chance.
    """
    count = len(predictions)
    if num_classes < 2 or num_classes**-count > level:
        return False
    labels = np.bincount(predictions.labels, minlength=num_classes) / count
    answers = np.bincount(predictions.predicted, minlength=num_classes) / count
    accident = float((labels * answers).sum()) if np.count_nonzero(labels) > 1 else 0.0
    return binomial_tail(int(predictions.correct.sum()), count, max(1.0 / num_classes, accident)) > level
