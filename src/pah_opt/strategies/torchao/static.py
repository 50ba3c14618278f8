"""Scales for activations that are fixed beforehand: what keeps static int8 from ruining a Vision Transformer.

torchao multiplies static activations with one scale for the whole tensor, since a scale for each token would depend on
the batch. A few outlier channels then take most of the 256 steps from all others. Four things keep the loss small:
outliers are divided out of the activations and multiplied into the weights (SmoothQuant), which have a scale for each
row; a zero point lets one-sided activations (after GELU) use all steps; the range is chosen for the least error;
and what outputs then lose on average goes back into the bias.

Pure functions of tensors.

References:
    Xiao et al., SmoothQuant, https://arxiv.org/abs/2211.10438.
    Nagel et al., Data-Free Quantization (bias correction), https://arxiv.org/abs/1906.04721.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pah_opt.strategies.torchao.observe import Seen


class Steps(NamedTuple):
    """Lowest and highest int8 value in use."""

    low: int
    high: int


ALL = Steps(-128, 127)
HALF = Steps(-64, 63)
"""For weights on CPUs whose int8 product overflows otherwise."""
ALPHAS = (0.3, 0.5, 0.65, 0.75, 0.85)
"""Shares of the outliers that are tried by ``smooth: auto``."""
SHRINKS = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the observed range that are tried."""


class Fixed(NamedTuple):
    """How a layer's inputs are quantized.

    Args:
        scale: one number, float32, with as many dimensions as the inputs have.
        zero_point: int8, likewise; None for symmetric ranges.
        divisor: what each input channel is divided by first, ``(in,)``; None for nothing. The weight's columns are
            multiplied by it.
        alpha: how much of the outliers moved into the weight; None when none did.
        error: relative error of the layer's output on the sample, with ``shift`` given back, 0 to 1.
        shift: what the layer's outputs lose on average, ``(out,)``, for its bias to give back; None when not known, or
            when there is no bias.
    """

    scale: Tensor
    zero_point: Tensor | None
    divisor: Tensor | None
    alpha: float | None
    error: float
    shift: Tensor | None = None


def fix(
    seen: Seen, weight: Tensor, smooth: float | Literal["auto"] | None, weight_steps: Steps = ALL, *, bias: bool = True
) -> Fixed:
    """Choose scale, zero point and divisor for one layer.

    Args:
        seen: its inputs.
        weight: ``(out, in)``.
        smooth: SmoothQuant's alpha; ``auto`` for the one with the least error of the layer's output; None for none.
        weight_steps: int8 values that the weight will use; the inputs use all.
        bias: whether the layer has one, to which what outputs lose on average can be given back.
    """
    weight = weight.detach().float()
    alphas = ALPHAS if smooth == "auto" else (smooth,)
    return min(
        (_with_alpha(seen, weight, alpha, weight_steps, bias=bias) for alpha in alphas), key=lambda fixed: fixed.error
    )


def naive(seen: Seen) -> Fixed:
    """Return the textbook scale: the largest absolute value, no zero point, no smoothing."""
    greatest = torch.maximum(-seen.low.min(), seen.high.max())
    return Fixed(_shaped(greatest / _half_width(ALL), seen.ndim), None, None, None, float("nan"))


def divisors(seen: Seen, weight: Tensor, alpha: float) -> Tensor:
    """Return SmoothQuant's factors ``max|x|^alpha / max|w|^(1 - alpha)`` of each input channel, ``(in,)``."""
    inputs = torch.maximum(-seen.low, seen.high).clamp_min(1e-5)
    columns = weight.abs().amax(dim=0).clamp_min(1e-5)
    return (inputs.pow(alpha) / columns.pow(1 - alpha)).clamp(1e-4, 1e4)


def _with_alpha(seen: Seen, weight: Tensor, alpha: float | None, weight_steps: Steps, *, bias: bool) -> Fixed:
    divisor = None if alpha is None else divisors(seen, weight, alpha)
    ones = torch.ones_like(seen.low)
    by = ones if divisor is None else divisor
    rows, scaled = seen.rows / by, weight * by
    low, high = (seen.low / by).min(), (seen.high / by).max()
    scale, zero_point = _least_squares(rows, low, high, scaled.square().sum(dim=0))
    wanted = seen.rows @ weight.T
    got = _rounded(rows, scale, zero_point) @ rounded_rows(scaled, weight_steps).T
    shift = (wanted - got).mean(dim=0) if bias else None
    if shift is not None:
        got = got + shift
    error = float((got - wanted).norm() / wanted.norm().clamp_min(1e-12))
    zero_point = _shaped(zero_point, seen.ndim).to(torch.int8)
    return Fixed(_shaped(scale, seen.ndim), zero_point, divisor, alpha, error, shift)


def _least_squares(rows: Tensor, low: Tensor, high: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and zero point of the range with the least error, weighted by how much each channel matters."""
    best: tuple[float, Tensor, Tensor] | None = None
    for shrink in SHRINKS:
        scale, zero_point = _affine(low * shrink, high * shrink)
        error = float(((_rounded(rows, scale, zero_point) - rows).square() * importance).sum())
        if best is None or error < best[0]:
            best = (error, scale, zero_point)
    return best[1:]  # type: ignore[index]  # SHRINKS is not empty


def _affine(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    low, high = low.clamp_max(0), high.clamp_min(0)
    scale = ((high - low) / (ALL.high - ALL.low)).clamp_min(torch.finfo(torch.float32).eps)
    return scale, (ALL.low - low / scale).round().clamp(*ALL)


def _rounded(values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return (((values / scale).round() + zero_point).clamp(*ALL) - zero_point) * scale


def rounded_rows(weight: Tensor, steps: Steps = ALL) -> Tensor:
    """Return a weight, ``(out, in)``, rounded to int8 steps with a symmetric scale for each row."""
    scale = (weight.abs().amax(dim=1, keepdim=True) / _half_width(steps)).clamp_min(torch.finfo(torch.float32).eps)
    return (weight / scale).round().clamp(*steps) * scale


def _half_width(steps: Steps) -> float:
    return (steps.high - steps.low) / 2  # as torchao has it


def _shaped(value: Tensor, ndim: int) -> Tensor:
    # torchao compares the number of dimensions of a static scale with that of the activation.
    return value.reshape([1] * ndim)
