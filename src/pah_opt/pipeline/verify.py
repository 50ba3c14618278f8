"""Did the step do what it promised? Compares a model before and after with the declared Effect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.errors import NoEffectError, StepFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pah_opt.layout import ModelAdapter
    from pah_opt.measure.model import ModelFigures
    from pah_opt.optimizer import Effect

SPARSITY_TOLERANCE = 1e-3
"""A share of zeros may fall short by rounding to whole weights."""
LOGITS_TOLERANCE = 1e-3
"""Relative error of logits that a step with ``same_logits`` may cause through a different order of additions."""


@dataclass(frozen=True)
class Snapshot:
    """What is known of a model at one moment.

    Args:
        figures: parameters, bytes, MACs.
        shapes: logical shape of each parameter, by name.
        logits: the logits of one fixed input, ``(batch, classes)``, float32; None on a dry run.
    """

    figures: ModelFigures
    shapes: Mapping[str, tuple[int, ...]]
    logits: Tensor | None

    @classmethod
    def of(cls, model: nn.Module, adapter: ModelAdapter, figures: ModelFigures, example: Tensor | None) -> Snapshot:
        """Look at ``model``; ``example`` is ``(batch, channels, height, width)`` or None on a dry run."""
        shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
        return cls(figures, shapes, None if example is None else example_logits(model, adapter, example))


def example_logits(model: nn.Module, adapter: ModelAdapter, example: Tensor) -> Tensor:
    """Return the model's logits for ``example``, in float32 on the CPU."""
    with torch.inference_mode():
        return adapter.logits(model(example)).float().cpu()


@dataclass(frozen=True)
class Verifier:
    """Checks one step's effect.

    Args:
        index: zero-based index of the step.
        name: the Optimizer's name.
        effect: what it promised.
        achieved: what it reported.
    """

    index: int
    name: str
    effect: Effect
    achieved: Mapping[str, Any]

    def verify(self, before: Snapshot, after: Snapshot) -> None:
        """Compare two snapshots with the promise.

        Raises:
            NoEffectError: a promised effect is missing.
            StepFailedError: the step did damage it did not announce (shapes, logits that are not finite).
        """
        for check in (self._parameters, self._bytes, self._zeros, self._dtype, self._shapes, self._logits):
            check(before, after)

    def _fail(self, kind: Callable[[int, str, str], StepFailedError], message: str) -> None:
        raise kind(self.index, self.name, message)

    def _parameters(self, before: Snapshot, after: Snapshot) -> None:
        if self.effect.fewer_parameters and after.figures.params >= before.figures.params:
            self._fail(
                NoEffectError,
                f"removed no parameters: {before.figures.params:,} before and {after.figures.params:,} after; "
                "raise the ratio, or lower the alignment so that rounding leaves something to remove",
            )

    def _bytes(self, before: Snapshot, after: Snapshot) -> None:
        if self.effect.fewer_bytes and after.figures.weights_bytes >= before.figures.weights_bytes:
            self._fail(
                NoEffectError,
                f"saved no bytes: {before.figures.weights_bytes:,} before and {after.figures.weights_bytes:,} after; "
                "check that its layer patterns select the large layers",
            )

    def _zeros(self, _before: Snapshot, _after: Snapshot) -> None:
        wanted, got = self.effect.zeros_at_least, self.achieved.get("sparsity")
        if wanted is not None and (got is None or got < wanted - SPARSITY_TOLERANCE):
            self._fail(
                NoEffectError, f"promised {wanted:.2%} zeros and reached {'none' if got is None else f'{got:.2%}'}"
            )

    def _dtype(self, _before: Snapshot, after: Snapshot) -> None:
        wanted, found = self.effect.linear_dtype, after.figures.linear_dtypes
        if wanted is not None and wanted not in found:
            self._fail(NoEffectError, f"promised linear layers in {wanted}; they are in {', '.join(found) or 'none'}")

    def _shapes(self, before: Snapshot, after: Snapshot) -> None:
        changed = [name for name, shape in before.shapes.items() if after.shapes.get(name, shape) != shape]
        if self.effect.same_shapes and changed:
            self._fail(
                StepFailedError,
                f"promised to keep shapes and changed {changed[0]} from {before.shapes[changed[0]]} "
                f"to {after.shapes[changed[0]]} (and {len(changed) - 1} more)",
            )

    def _logits(self, before: Snapshot, after: Snapshot) -> None:
        if before.logits is None or after.logits is None:
            return
        if not torch.isfinite(after.logits).all():
            self._fail(
                StepFailedError,
                "the logits are no longer finite (NaN or infinity); "
                "use a milder setting, or a wider type such as bf16 instead of fp16",
            )
        if after.logits.shape != before.logits.shape:
            self._fail(
                StepFailedError,
                f"logits changed shape from {tuple(before.logits.shape)} to {tuple(after.logits.shape)}",
            )
        scale = before.logits.abs().max().clamp_min(1e-6)
        if self.effect.same_logits and (after.logits - before.logits).abs().max() > LOGITS_TOLERANCE * scale:
            self._fail(StepFailedError, "promised to keep the logits and changed them")


def verify_attributes(index: int, name: str, adapter: ModelAdapter, model: nn.Module) -> None:
    """Check that attributes and config say what the tensors are.

    Raises:
        StepFailedError: lists every attribute that is no longer true.
    """
    false = adapter.disagreements(model)
    if false:
        raise StepFailedError(index, name, "left attributes that disagree with the tensors: " + "; ".join(false))
