"""Replace a classifier; or fit a linear one on frozen features: logistic regression by L-BFGS, in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pah_opt.errors import DataError, UnsupportedModelError
from pah_opt.models.surgery import replace_module

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.layout import ModelAdapter

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
"""Weights of the squared norm that are tried, for features of unit variance and the mean loss."""
ITERATIONS = 100
"""L-BFGS steps at most, for each penalty; each starts where the one before ended."""


def replace_head(model: nn.Module, adapter: ModelAdapter, class_names: Sequence[str], seed: int) -> None:
    """Give a model new, seeded classifiers for these classes; label names travel in its config.

    Args:
        model: changed in place.
        adapter: of the model.
        class_names: names of the classes.
        seed: of the new weights.

    Raises:
        UnsupportedModelError: there is no classifier to replace.
    """
    layout = adapter.layout(model)
    if not layout.classifiers:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no classifier to replace; load it as a classifier "
            f"(pah_opt.models.load_model(SOURCE, num_labels={len(class_names)}))"
        )
    for path in layout.classifiers:
        replace_module(model, path, _new_head(model.get_submodule(path), len(class_names), seed))
    name_labels(model, class_names)
    adapter.sync(model)


def _new_head(old: nn.Module, classes: int, seed: int) -> nn.Linear:
    weight = old.weight
    if not isinstance(old, nn.Linear) or not isinstance(weight, Tensor):
        raise UnsupportedModelError(f"the classifier is a {type(old).__name__}, a linear layer is needed")
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(old.in_features, classes, device="cpu")
    with torch.no_grad():
        # The same small weights that ViTs start from: logits near zero, a loss near log(classes).
        head.weight.normal_(std=0.02, generator=generator)
        head.bias.zero_()
    return head.to(weight.device, weight.dtype)


def name_labels(model: nn.Module, class_names: Sequence[str]) -> None:
    """Write class names into a transformers config; other models have no place for them."""
    config: Any = getattr(model, "config", None)
    if config is not None and hasattr(config, "id2label"):
        config.id2label = dict(enumerate(class_names))
        config.label2id = {name: index for index, name in enumerate(class_names)}


@dataclass(frozen=True)
class LinearFit:
    """A linear classifier, and how well it fits.

    Args:
        weight: float32, ``(classes, features)``.
        bias: float32, ``(classes,)``.
        penalty: weight of the squared norm that was chosen.
        losses: mean cross-entropy on the fitted features after each step of the last fit.
        train_accuracy: on the fitted features, 0 to 1.
        validation_loss: mean cross-entropy on the held-out features; None without any.
        validation_accuracy: on the held-out features, 0 to 1; None without any.
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    losses: tuple[float, ...]
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None


@dataclass(frozen=True)
class Features:
    """Inputs of a classifier and labels.

    Args:
        inputs: float, ``(images, features)``.
        labels: int64, ``(images,)``.
    """

    inputs: Tensor
    labels: Tensor


def fit_linear(
    train: Features, validation: Features | None, classes: int, *, penalties: Sequence[float] = PENALTIES
) -> LinearFit:
    """Fit multinomial logistic regression with L-BFGS on standardised features; the scaling is folded into the weights.

    The penalty with the lowest loss on ``validation`` is chosen; without it, the second of ``penalties``.

    Args:
        train: to fit.
        validation: to choose the penalty by.
        classes: number of classes.
        penalties: weights of the squared norm to try.

    Raises:
        DataError: features are not finite.
    """
    if not torch.isfinite(train.inputs).all():
        raise DataError("features hold NaN or infinity; check the model's weights and the images")
    mean = train.inputs.double().mean(dim=0)
    scale = train.inputs.double().std(dim=0, correction=0).clamp_min(1e-6)
    solver = _Solver(_standardised(train, mean, scale), classes)
    held_out = None if validation is None else _standardised(validation, mean, scale)
    tried = sorted(penalties, reverse=True) if held_out is not None else [sorted(penalties)[min(1, len(penalties) - 1)]]
    fits = [solver.fit(penalty, held_out) for penalty in tried]
    best = min(fits, key=lambda fit: fit.validation_loss if fit.validation_loss is not None else 0.0)
    weight = best.weight.double() / scale
    bias = best.bias.double() - weight @ mean
    return LinearFit(
        weight.float(), bias.float(), best.penalty, best.losses, best.train_accuracy, best.validation_loss,
        best.validation_accuracy,
    )  # fmt: skip


def _standardised(features: Features, mean: Tensor, scale: Tensor) -> Features:
    inputs = ((features.inputs.double() - mean) / scale).float()
    return Features(inputs, features.labels.to(inputs.device))


class _Solver:
    """L-BFGS on standardised features, warm from one penalty to the next smaller one."""

    def __init__(self, train: Features, classes: int) -> None:
        self.train = train
        width = train.inputs.shape[1]
        self.weight = torch.zeros(classes, width, device=train.inputs.device, requires_grad=True)
        self.bias = torch.zeros(classes, device=train.inputs.device, requires_grad=True)

    def fit(self, penalty: float, held_out: Features | None) -> LinearFit:
        losses: list[float] = []
        optimizer = torch.optim.LBFGS(
            [self.weight, self.bias], max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe",
            tolerance_grad=1e-5, tolerance_change=1e-7,
        )  # fmt: skip

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = functional.cross_entropy(self._logits(self.train), self.train.labels)
            losses.append(float(loss.detach()))
            objective = loss + 0.5 * penalty * self.weight.square().sum()
            objective.backward()  # type: ignore[no-untyped-call]  # torch's own
            return objective

        with torch.enable_grad():
            optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch's own
        _, accuracy = self._judge(self.train)
        loss, held_out_accuracy = (None, None) if held_out is None else self._judge(held_out)
        weight, bias = self.weight.detach().clone(), self.bias.detach().clone()
        return LinearFit(weight, bias, penalty, tuple(losses), accuracy, loss, held_out_accuracy)

    def _logits(self, features: Features) -> Tensor:
        return functional.linear(features.inputs, self.weight, self.bias)

    @torch.no_grad()
    def _judge(self, features: Features) -> tuple[float, float]:
        logits = self._logits(features)
        loss = functional.cross_entropy(logits, features.labels)
        return float(loss), float((logits.argmax(dim=1) == features.labels).double().mean())
