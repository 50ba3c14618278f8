"""Check that a change of how a model computes did not change what it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pah_opt.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.optimizer import Context

EXAMPLES = 2
"""Images in the batch on which logits are compared."""
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}
"""Largest change of a logit, relative to the largest logit, that another order of roundings explains."""
QUANTIZED_TOLERANCE = 1e-1
"""The same where activations are quantized: a value next to a rounding threshold may fall to its other side."""

NUDGE = 1e-6
"""Relative change of pixels that is no more than float32 rounds away in a layer or two."""
WOBBLES = 4.0
"""How many times what a nudge changes another order of roundings may change."""


def example_pixels(model: nn.Module, context: Context) -> Tensor:
    """Return seeded random pixels that fit the model, ``(2, channels, height, width)`` float32, on its device."""
    layout = context.adapter.layout(model)
    shape = (EXAMPLES, layout.in_channels, *layout.image_size)
    pixels = _noise(shape, context.seed)
    return pixels.to(next(model.parameters()).device)


def _noise(shape: Sequence[int], seed: int) -> Tensor:
    """Return standard normal numbers, float32 on the CPU whatever torch's defaults are."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")


@torch.inference_mode()
def example_logits(model: nn.Module, context: Context, pixels: Tensor) -> Tensor:
    """Return the logits for ``pixels``, ``(batch, classes)`` float32, as a copy."""
    return context.adapter.logits(model(pixels)).float().clone()


def tolerance_of(model: nn.Module) -> float:
    """Return the relative change of logits that rounding explains for this model."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    if any(hasattr(weight, "__tensor_flatten__") or not weight.is_floating_point() for weight in weights):
        return QUANTIZED_TOLERANCE
    return max(
        (TOLERANCE.get(weight.dtype, QUANTIZED_TOLERANCE) for weight in weights), default=TOLERANCE[torch.float32]
    )


def relative_change(before: Tensor, after: Tensor) -> float:
    """Return the largest change of a logit over the largest logit before; infinity when it is not finite."""
    if not torch.isfinite(after).all():
        return float("inf")
    return float((after - before).abs().max() / before.abs().max().clamp_min(1e-6))


@torch.inference_mode()
def wobble(model: nn.Module, context: Context, pixels: Tensor, logits: Tensor) -> float:
    """Return the relative change of ``logits`` when ``pixels`` change by about what float32 rounds away.

    Nothing but rounding is different then. Where activations are quantized that can be a lot: a value next to a
    threshold falls to its other side, and every layer after it sees the difference.
    """
    noise = _noise(pixels.shape, context.seed + 1)
    nudged = pixels * (1.0 + NUDGE * noise.to(pixels))
    return relative_change(logits, example_logits(model, context, nudged))


def check_agreement(before: Tensor, after: Tensor, model: nn.Module, what: str, wobbles: float | None = None) -> float:
    """Return the relative change of the logits.

    Args:
        before: logits, ``(batch, classes)``.
        after: logits of the same images.
        model: whose weights' types say how exactly it computes.
        what: what was done to it.
        wobbles: the change by rounding alone, as :func:`wobble` measures it; a few times that is allowed; None where
            it was not measured.

    Raises:
        UnsupportedModelError: it is more than rounding explains; names ``what`` caused it.
    """
    change, allowed = relative_change(before, after), tolerance_of(model)
    if wobbles is not None:
        allowed = max(allowed, WOBBLES * wobbles)
    if change > allowed or change == float("inf"):
        raise UnsupportedModelError(
            f"{what} changed the logits by {change:.2g} of the largest one, rounding explains at most {allowed:.2g}; "
            "leave this step out, and please report the model"
        )
    return change
