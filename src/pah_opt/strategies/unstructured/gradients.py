"""Gradients of the loss with respect to chosen weights, summed or squared per image, with nothing left on the model.

A linear layer's weight gradient is ``g^T x`` of its output gradient and its input. Hooks on the outputs form it layer
by layer, so that no ``.grad`` is ever filled, weights that are not chosen cost nothing, and squares can be taken per
image (a square of a batch's gradient is not the mean of its images' squares).
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from pah_opt.errors import DataError
from pah_opt.models.calibration import checked_pixels, evenly_spaced
from pah_opt.strategies.unstructured.activations import batch_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pah_opt.layout import Layout
    from pah_opt.optimizer import Context
    from pah_opt.strategies.unstructured.config import Observation

    Accumulate = Callable[[Tensor, Tensor, Tensor], None]


def add_gradient(total: Tensor, inputs: Tensor, gradient: Tensor) -> None:
    """Add a batch's weight gradient to ``total``.

    Args:
        total: ``(out, in)``, float32.
        inputs: ``(images, ..., in)``.
        gradient: of the loss by the output, ``(images, ..., out)``.
    """
    total += gradient.flatten(0, -2).T.float() @ inputs.flatten(0, -2).float()


def add_squared_gradients(total: Tensor, inputs: Tensor, gradient: Tensor) -> None:
    """Add the square of each image's weight gradient to ``total``; shapes as in :func:`add_gradient`."""
    for image_inputs, image_gradient in zip(inputs, gradient, strict=True):
        rows = image_gradient.reshape(-1, gradient.shape[-1]).float()
        own = rows.T @ image_inputs.reshape(-1, inputs.shape[-1]).float()
        total.addcmul_(own, own)


def mean_gradients(
    model: nn.Module, layers: Mapping[str, nn.Linear], context: Context, seeing: Observation
) -> dict[str, Tensor]:
    """Return the mean gradient of the cross-entropy by each layer's weight, ``(out, in)``, float32."""
    return _observe(model, layers, context, seeing, add_gradient)


def mean_squared_gradients(
    model: nn.Module, layers: Mapping[str, nn.Linear], context: Context, seeing: Observation
) -> dict[str, Tensor]:
    """Return the mean over images of the squared gradient (the empirical Fisher diagonal), ``(out, in)``, float32."""
    return _observe(model, layers, context, seeing, add_squared_gradients)


def _observe(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    context: Context,
    seeing: Observation,
    accumulate: Accumulate,
) -> dict[str, Tensor]:
    totals = {
        path: torch.zeros_like(layer.weight, dtype=torch.float32, requires_grad=False) for path, layer in layers.items()
    }
    layout = context.adapter.layout(model)
    with torch.enable_grad(), _frozen(model), ExitStack() as hooks:
        for path, layer in layers.items():
            handle = layer.register_forward_hook(_hook(totals[path], accumulate))
            hooks.callback(handle.remove)
        seen = sum(_backward(model, context, *batch) for batch in _labelled(model, layout, context, seeing))
    return {path: _finite(path, total / seen) for path, total in totals.items()}


def _hook(total: Tensor, accumulate: Accumulate) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def after_forward(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen = inputs[0].detach()
        output.register_hook(lambda gradient: accumulate(total, seen, gradient))  # type: ignore[no-untyped-call]

    return after_forward


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter ask for a gradient meanwhile; the pixels do, so that there is a graph at all."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _labelled(
    model: nn.Module, layout: Layout, context: Context, seeing: Observation
) -> Iterator[tuple[Tensor, Tensor]]:
    if context.calibration is None or len(context.calibration) == 0:
        raise DataError("there are no calibration images; pass data with at least one labelled training image")
    like = next(model.parameters())
    split = evenly_spaced(context.calibration, seeing.images)
    total = batch_count(split, seeing.batch_size)
    for batch in context.progress.track(split.batches(seeing.batch_size), "gradients", total=total):
        pixels = checked_pixels(batch.pixel_values, layout, split.name)
        yield pixels.to(like.device, like.dtype), _checked_labels(batch.labels, layout, split.name).to(like.device)


def _checked_labels(labels: Tensor, layout: Layout, name: str) -> Tensor:
    if labels.numel() and (labels.min() < 0 or labels.max() >= layout.num_classes):
        raise DataError(
            f"labels of {name} run from {int(labels.min())} to {int(labels.max())}, the model has classes 0 to "
            f"{layout.num_classes - 1}; use the data set the classifier was trained for, or fit a head first"
        )
    return labels


def _backward(model: nn.Module, context: Context, pixels: Tensor, labels: Tensor) -> int:
    """Run one batch forwards and backwards; the hooks see the gradients. Return how many images it had."""
    pixels = pixels.clone().requires_grad_(True)
    logits = context.adapter.logits(model(pixels)).float()
    torch.autograd.grad(functional.cross_entropy(logits, labels, reduction="sum"), pixels)
    return len(labels)


def _finite(path: str, gradient: Tensor) -> Tensor:
    if not torch.isfinite(gradient).all():
        raise DataError(
            f"the loss gradient of {path} is not finite on the calibration images; check the model's weights"
        )
    return gradient
