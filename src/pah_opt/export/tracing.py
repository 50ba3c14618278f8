"""From pixels to logits as one program of plain operators, for any batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.errors import ExportError
from pah_opt.export.lowering import lower, unwrap
from pah_opt.export.quiet import quiet

if TYPE_CHECKING:
    from pah_opt.export.lowering import Form, Rounding
    from pah_opt.export.subject import Subject
    from pah_opt.layout import ModelAdapter

INPUT, OUTPUT = "pixel_values", "logits"
TRACED_IMAGES = 2
"""A program that is traced with one image takes one image ever after."""


class Classifier(nn.Module):
    """A model that takes pixels and returns float32 logits, nothing else.

    Args:
        model: the model.
        adapter: finds the logits in what it returns.
    """

    def __init__(self, model: nn.Module, adapter: ModelAdapter) -> None:
        super().__init__()
        self.model = model
        self._logits = adapter.logits

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return logits ``(batch, classes)`` of pixels ``(batch, channels, height, width)``, both float32."""
        return self._logits(self.model(pixel_values)).float()


def classifier_of(
    subject: Subject, form: Form, dtype: torch.dtype | None = None, rounding: Rounding = "own"
) -> Classifier:
    """Return a copy of the subject's model with its quantized layers written out.

    Args:
        subject: what is exported; stays as it is.
        form: of the quantized layers.
        dtype: floating-point type to compute in; the model's own by default.
        rounding: of activations.
    """
    model = subject.private_copy()
    lower(model, form, rounding)
    unwrap(model)
    return Classifier(model if dtype is None else model.to(dtype), subject.adapter).eval()


def traced_input(subject: Subject) -> Tensor:
    """Return pixels to trace with."""
    return torch.zeros((TRACED_IMAGES, *subject.image_shape), device="cpu")


def dynamic_batch() -> dict[str, Any]:
    """Return what tells torch.export that the number of images is free."""
    return {INPUT: {0: torch.export.Dim("batch", min=1)}}


def program_of(classifier: Classifier, subject: Subject) -> torch.export.ExportedProgram:
    """Return a classifier as a program of plain operators, without paths of this machine's files.

    Raises:
        ExportError: the model cannot be traced.
    """
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(classifier, (traced_input(subject),), dynamic_shapes=dynamic_batch())
    except Exception as error:  # tracing runs foreign modules, which may raise anything
        raise ExportError(f"torch.export cannot trace the model: {_why(error)}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _why(error: Exception) -> str:
    if "specialized it to be a constant" in str(error):
        return "its code fixes the number of images (len() of a tensor does, .shape[0] of it does not)"
    return first_line(error)


def first_line(error: BaseException) -> str:
    """Return the first line that says something, of an exception."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
