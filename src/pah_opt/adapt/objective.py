"""The loss: labels, the teacher's logits, and the teacher's hidden states, in the proportions asked for."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pah_opt.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pah_opt.adapt.augment import Example
    from pah_opt.adapt.settings import TrainSettings
    from pah_opt.layout import ModelAdapter


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return ``T² KL(teacher ‖ student)`` of softened distributions, summed over the batch.

    Args:
        student: logits, ``(batch, classes)``.
        teacher: logits, ``(batch, classes)``.
        temperature: ``T``; the factor ``T²`` keeps gradients as large as those of the labels.

    References:
        G. Hinton et al.: Distilling the Knowledge in a Neural Network, https://arxiv.org/abs/1503.02531.
    """
    divergence = functional.kl_div(
        (student.float() / temperature).log_softmax(dim=-1),
        (teacher.float() / temperature).log_softmax(dim=-1),
        reduction="sum",
        log_target=True,
    )
    return divergence * temperature**2


def feature_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Return the squared error of hidden states over the teacher's variance, mean over blocks, summed over the batch.

    Args:
        student: hidden states after each block, ``(batch, tokens, hidden_size)``.
        teacher: hidden states to match, of the same shapes.
    """
    terms = [
        # The variance of each image alone: the loss must not depend on how a batch is shared.
        (own.float() - theirs.float()).square().mean(dim=(1, 2)) / theirs.float().var(dim=(1, 2))
        for own, theirs in zip(student, teacher, strict=True)
    ]
    return torch.stack(terms).mean(dim=0).sum()


def matching_blocks(student: int, teacher: int) -> list[int]:
    """Return for each of the student's blocks the teacher's block it should match; the last match the last.

    >>> matching_blocks(3, 6)
    [1, 3, 5]
    """
    return [round((index + 1) * teacher / student) - 1 for index in range(student)]


@contextmanager
def watching_outputs(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Keep the latest output of each module in a dictionary until the block ends."""
    seen: dict[str, Tensor] = {}

    def keeper(path: str) -> Any:
        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            seen[path] = output[0] if isinstance(output, tuple) else output

        return keep

    handles = [model.get_submodule(path).register_forward_hook(keeper(path)) for path in paths]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Objective:
    """Computes the loss of a batch, summed over its images.

    Args:
        settings: the proportions.
        adapter: takes logits out of outputs.
        teacher: in ``eval`` mode; needed when the settings distil.
        teacher_size: height and width of the teacher's input; images are interpolated to it.
        student_states: the student's hidden states of the running forward pass, by path.
        teacher_states: the teacher's.
    """

    settings: TrainSettings
    adapter: ModelAdapter
    teacher: nn.Module | None = None
    teacher_size: tuple[int, int] | None = None
    student_states: dict[str, Tensor] = field(default_factory=dict)
    teacher_states: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, logits: Tensor, example: Example) -> Tensor:
        """Return the loss of the student's ``logits``, ``(batch, classes)``, summed over the batch."""
        settings = self.settings
        loss = logits.new_zeros((), dtype=torch.float32)
        if settings.distill < 1.0 or self.teacher is None:
            smoothing = settings.label_smoothing
            labels = functional.cross_entropy(
                logits.float(), example.targets, label_smoothing=smoothing, reduction="sum"
            )
            loss = labels if self.teacher is None else (1.0 - settings.distill) * labels
        if self.teacher is None:
            return loss
        answers = self._ask(self.teacher, example.pixels)
        loss = loss + settings.distill * distillation_loss(logits, answers, settings.temperature)
        if settings.distill_features:
            own, theirs = self._states()
            loss = loss + settings.distill_features * feature_loss(own, theirs)
        return loss

    @torch.no_grad()
    def _ask(self, teacher: nn.Module, pixels: Tensor) -> Tensor:
        if self.teacher_size is not None and tuple(pixels.shape[-2:]) != self.teacher_size:
            pixels = functional.interpolate(pixels, self.teacher_size, mode="bicubic", antialias=True)
        return self.adapter.logits(teacher(pixels)).detach()

    def _states(self) -> tuple[list[Tensor], list[Tensor]]:
        own, theirs = list(self.student_states.values()), list(self.teacher_states.values())
        matched = [theirs[index] for index in matching_blocks(len(own), len(theirs))]
        for mine, goal in zip(own, matched, strict=True):
            if mine.shape != goal.shape:
                raise UnsupportedModelError(
                    f"hidden states of shape {tuple(mine.shape)} cannot match the teacher's {tuple(goal.shape)}; set "
                    "distill_features to 0 after the hidden width or the input size was changed"
                )
        return own, matched
