"""What goes into a module while a model runs on images: the inputs of classifiers, and of transformer blocks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pah_opt.adapt.heads import Features, LinearFit, fit_linear
from pah_opt.adapt.problems import head_problems
from pah_opt.errors import UnsupportedModelError
from pah_opt.models.watching import watching_inputs
from pah_opt.progress import Progress

if TYPE_CHECKING:
    from pah_opt.adapt.processes import Processes
    from pah_opt.layout import Layout
    from pah_opt.splits import Split

BATCH_SIZE = 64
"""Images in a forward pass without gradients."""


@torch.no_grad()
def classifier_inputs(
    model: nn.Module, layout: Layout, split: Split, processes: Processes, progress: Progress | None = None
) -> dict[str, Features]:
    """Run a model in ``eval`` mode on every image, and return what went into each of its classifiers.

    Args:
        model: its modes are left in ``eval``.
        layout: of the model.
        split: labelled images.
        processes: gives device and precision; every process sees every image.
        progress: shows progress.

    Returns:
        For each classifier's path its inputs, ``(images, features)`` float32, in the order of ``split``.

    Raises:
        UnsupportedModelError: a classifier did not run, or not on one vector an image.
    """
    model.eval()
    kept: dict[str, list[Tensor]] = {path: [] for path in layout.classifiers}
    labels: list[Tensor] = []
    batches = (progress or Progress()).track(
        split.batches(BATCH_SIZE), "computing features", total=math.ceil(len(split) / BATCH_SIZE)
    )
    seen: dict[str, Tensor] = {}
    watched = {path: model.get_submodule(path) for path in layout.classifiers}
    with watching_inputs(watched, seen.__setitem__):
        for batch in batches:
            with processes.autocast():
                model(batch.pixel_values.to(processes.device))
            labels.append(batch.labels.to(processes.device))
            for path, parts in kept.items():
                parts.append(_checked(seen, path, len(batch.labels)).float())
    return {path: Features(torch.cat(parts), torch.cat(labels)) for path, parts in kept.items()}


def _checked(seen: dict[str, Tensor], path: str, count: int) -> Tensor:
    inputs = seen.pop(path, None)
    if inputs is None or inputs.ndim != 2 or len(inputs) != count:
        found = "did not run" if inputs is None else f"ran on inputs of shape {tuple(inputs.shape)}"
        raise UnsupportedModelError(f"the classifier {path} {found}; one vector an image is needed")
    return inputs


def fit_head(
    model: nn.Module,
    layout: Layout,
    train: Split,
    validation: Split | None,
    processes: Processes,
    progress: Progress | None = None,
) -> LinearFit:
    """Fit a model's classifiers on its frozen features, and write them into it.

    A distilled DeiT has two classifiers, each on its own token; the figures returned are those of the first.

    Args:
        model: changed in place (its classifiers only).
        layout: of the model.
        train: images to fit on.
        validation: images to choose the penalty by.
        processes: gives device and precision.
        progress: shows progress.

    Raises:
        UnsupportedModelError: there is no classifier, one has no bias, or one did not run on one vector an image.
    """
    problems = head_problems(model, layout, "adapt with head_first=False, in another mode than head")
    if problems:
        raise UnsupportedModelError(problems[0])
    seen = classifier_inputs(model, layout, train, processes, progress)
    held_out = {} if validation is None else classifier_inputs(model, layout, validation, processes, progress)
    fits = {path: fit_linear(features, held_out.get(path), len(train.class_names)) for path, features in seen.items()}
    for path, fit in fits.items():
        _write(model.get_submodule(path), fit)
    return next(iter(fits.values()))


@torch.no_grad()
def _write(head: nn.Module, fit: LinearFit) -> None:
    for name, value in (("weight", fit.weight), ("bias", fit.bias)):
        parameter = getattr(head, name)
        parameter.copy_(value)
