"""Gradients of the loss with respect to chosen weights, summed or squared per image, with nothing left on the model.

A linear layer's weight gradient is ``g^T x`` of its output gradient and its input. Hooks on the outputs form it layer
by layer, so that no ``.grad`` is ever filled, weights that are not chosen cost nothing, and squares can be taken per
image (a square of a batch's gradient is not the mean of its images' squares).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from pah_opt.errors import DataError
from pah_opt.models.calibration import checked_pixels, evenly_spaced
from pah_opt.models.gradients import require_gradients
from pah_opt.models.watching import frozen_parameters
from pah_opt.strategies.unstructured.activations import batch_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pah_opt.layout import Layout
    from pah_opt.optimizer import Context
    from pah_opt.strategies.unstructured.config import Observation


@dataclass
class GradientSums:
    """What the loss gradients of one layer add up to; divided by the images seen, means.

    Args:
        weight: the weight's gradient, or the square of each image's, ``(out, in)``, float32.
        outputs: squares of the output gradients, summed over tokens, ``(out,)``, float32.
    """

    weight: Tensor
    outputs: Tensor

    @classmethod
    def zeros(cls, layer: nn.Linear) -> GradientSums:
        """Start at nothing."""
        rows, columns = layer.weight.shape
        device = layer.weight.device
        zeros = partial(torch.zeros, dtype=torch.float32, device=device)
        return cls(zeros(rows, columns), zeros(rows))

    def add(self, inputs: Tensor, gradient: Tensor, *, squared: bool) -> None:
        """Add a batch.

        Args:
            inputs: ``(images, ..., in)``.
            gradient: of the loss by the output, ``(images, ..., out)``.
            squared: add the square of each image's weight gradient instead of the gradient.
        """
        (add_squared_gradients if squared else add_gradient)(self.weight, inputs, gradient)
        self.outputs += gradient.flatten(0, -2).float().square().sum(dim=0)

    def mean(self, images: int) -> GradientSums:
        """Divide by the number of images."""
        return GradientSums(self.weight / images, self.outputs / images)


def add_gradient(total: Tensor, inputs: Tensor, gradient: Tensor) -> None:
    """Add a batch's weight gradient to ``total``, ``(out, in)``; the other shapes as in :meth:`GradientSums.add`."""
    total += gradient.flatten(0, -2).T.float() @ inputs.flatten(0, -2).float()


def add_squared_gradients(total: Tensor, inputs: Tensor, gradient: Tensor) -> None:
    """Add the square of each image's weight gradient to ``total``; shapes as in :func:`add_gradient`."""
    for image_inputs, image_gradient in zip(inputs, gradient, strict=True):
        rows = image_gradient.reshape(-1, gradient.shape[-1]).float()
        own = rows.T @ image_inputs.reshape(-1, inputs.shape[-1]).float()
        total.addcmul_(own, own)


def mean_gradients(
    model: nn.Module, layers: Mapping[str, nn.Linear], context: Context, seeing: Observation, *, squared: bool = False
) -> dict[str, GradientSums]:
    """Observe the gradients of the cross-entropy on labelled calibration images.

    Args:
        model: in ``eval`` mode.
        layers: the layers to observe, by path.
        context: has the calibration images.
        seeing: how many images, and how many at once.
        squared: take the mean of the squares of each image's weight gradient (the diagonal of the empirical Fisher
            matrix) instead of the mean gradient.

    Raises:
        DataError: images or labels cannot be used, or gradients are not finite or all zero.
    """
    sums = {path: GradientSums.zeros(layer) for path, layer in layers.items()}
    with torch.enable_grad(), frozen_parameters(model), ExitStack() as hooks:
        for path, layer in layers.items():
            hooks.callback(layer.register_forward_hook(_hook(sums[path], squared=squared)).remove)
        seen = sum(_backward(model, context, *batch) for batch in _labelled(model, context, seeing))
    means = {path: _finite(path, total.mean(seen)) for path, total in sums.items()}
    require_gradients((each.outputs for each in means.values()), "magnitude or wanda (sparsegpt: allocation: uniform)")
    return means


def _hook(sums: GradientSums, *, squared: bool) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def after_forward(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen = inputs[0].detach()
        output.register_hook(lambda gradient: sums.add(seen, gradient, squared=squared))  # type: ignore[no-untyped-call]

    return after_forward


def _labelled(model: nn.Module, context: Context, seeing: Observation) -> Iterator[tuple[Tensor, Tensor]]:
    if context.calibration is None or len(context.calibration) == 0:
        raise DataError("there are no calibration images; pass data with at least one labelled training image")
    layout, like = context.adapter.layout(model), next(model.parameters())
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


def _finite(path: str, mean: GradientSums) -> GradientSums:
    if not (torch.isfinite(mean.weight).all() and torch.isfinite(mean.outputs).all()):
        raise DataError(f"loss gradients of {path} are not finite on the calibration images; check the model's weights")
    return mean
