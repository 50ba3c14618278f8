"""Did the step do what it promised? Compares a model before and after with the declared Effect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.errors import NoEffectError, StepFailedError
from pah_opt.measure.tensors import count_nonzero

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
        zeros: zeros and values of each matrix among the parameters, by name.
        ways: by what each module computes its output, by path (see :func:`ways_of_computing`).
        logits: the logits of one fixed input, ``(batch, classes)``, float32; None on a dry run.
    """

    figures: ModelFigures
    shapes: Mapping[str, tuple[int, ...]]
    zeros: Mapping[str, tuple[int, int]]
    ways: Mapping[str, tuple[Any, ...]]
    logits: Tensor | None

    @classmethod
    def of(cls, model: nn.Module, adapter: ModelAdapter, figures: ModelFigures, example: Tensor | None) -> Snapshot:
        """Look at ``model``; ``example`` is ``(batch, channels, height, width)`` or None on a dry run."""
        shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
        logits = None if example is None else example_logits(model, adapter, example)
        return cls(figures, shapes, zeros_of(model), ways_of_computing(model), logits)


def zeros_of(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return, by name, how many values of each matrix are zero, and how many there are; nothing on ``meta``.

    Packed weights, whose shape does not say what they hold, are left out.
    """
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and parameter.is_floating_point() and parameter.device.type != "meta":
            found[name] = parameter.numel() - count_nonzero(parameter), parameter.numel()
    return found


def ways_of_computing(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    """Return, by path, what decides which code computes a module's output.

    Its class, a ``forward`` or a compiled call of its own, and the switches for attention of timm and transformers.
    """
    return {
        path: (
            type(module), vars(module).get("forward"), getattr(module, "_compiled_call_impl", None),
            getattr(module, "fused_attn", None), getattr(getattr(module, "config", None), "_attn_implementation", None),
        )
        for path, module in model.named_modules()
    }  # fmt: skip


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
        checks = (
            self._parameters, self._bytes, self._zeros, self._dtype, self._type, self._shapes, self._logits,
        )  # fmt: skip
        for check in checks:
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

    def _zeros(self, before: Snapshot, after: Snapshot) -> None:
        wanted, recorded = self.effect.zeros_at_least, self.achieved.get("sparsity")
        if wanted is None:
            return
        if recorded is not None and recorded < wanted - SPARSITY_TOLERANCE:
            self._fail(NoEffectError, f"promised {wanted:.2%} zeros and reached {recorded:.2%}")
        counted = _share_of_zeros(before.zeros, after.zeros, wanted)
        if counted < wanted - SPARSITY_TOLERANCE:
            said = "" if recorded is None else f" and recorded {recorded:.2%}"
            self._fail(NoEffectError, f"promised {wanted:.2%} zeros{said}; its weights hold {counted:.2%}")

    def _dtype(self, _before: Snapshot, after: Snapshot) -> None:
        wanted, found = self.effect.linear_dtype, after.figures.linear_dtypes
        if wanted is not None and wanted not in found:
            self._fail(NoEffectError, f"promised linear layers in {wanted}; they are in {', '.join(found) or 'none'}")

    def _type(self, before: Snapshot, after: Snapshot) -> None:
        if self.effect.new_type and before.ways == after.ways:
            self._fail(NoEffectError, "promised another way of computing, and every module computes as before")

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


def _share_of_zeros(
    before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]], wanted: float
) -> float:
    """Return the share of zeros among the weights that a step can have worked on, 0 to 1.

    Which weights those are is not known from outside. They are taken to be those that gained zeros, and those that
    have the wanted share. Whatever else a step worked on has fewer zeros, so that this share is never lower than the
    one of an honest record. Weights that were nothing but zeros before (a fresh classifier) are no work of any step.
    """
    held = {name: before.get(name, (0, size))[0] for name, (_, size) in after.items()}
    chosen = {name: (n, size) for name, (n, size) in after.items() if n > held[name] or n >= wanted * size}
    if all(held[name] == size for name, (_, size) in chosen.items()):
        return 0.0
    return sum(n for n, _ in chosen.values()) / sum(size for _, size in chosen.values())


def verify_attributes(index: int, name: str, adapter: ModelAdapter, model: nn.Module) -> None:
    """Check that attributes and config say what the tensors are.

    Raises:
        StepFailedError: lists every attribute that is no longer true.
    """
    false = adapter.disagreements(model)
    if false:
        raise StepFailedError(index, name, "left attributes that disagree with the tensors: " + "; ".join(false))
