"""What makes a single weight worth keeping: the formulas, and where their data come from."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import torch

from pah_opt.strategies.unstructured.activations import input_rms
from pah_opt.strategies.unstructured.gradients import mean_gradients
from pah_opt.strategies.unstructured.prune import magnitude

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from pah_opt.optimizer import Context
    from pah_opt.strategies.unstructured.config import Observation, UnstructuredConfig
    from pah_opt.strategies.unstructured.gradients import GradientSums
    from pah_opt.strategies.unstructured.prune import Score


def lamp(weight: Tensor) -> Tensor:
    """Return layer-adaptive magnitudes: each square over the sum of the squares that are not smaller.

    The largest weight of each layer scores 1, so that no layer is emptied before all are.

    References:
        Lee et al., Layer-adaptive sparsity for the magnitude-based pruning, https://arxiv.org/abs/2010.07611.
    """
    squares, order = weight.detach().double().square().flatten().sort(stable=True)
    survivors = squares.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares).scatter_(
        0, order, squares / survivors.clamp_min(torch.finfo(squares.dtype).tiny)
    )
    return scores.float().reshape(weight.shape)


def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return the first-order change of the loss, ``|w g|``, when a weight is dropped.

    References:
        Molchanov et al., Importance estimation for neural network pruning, https://arxiv.org/abs/1906.10771.
    """
    return (weight.detach().float() * gradient).abs()


def optimal_brain_damage(weight: Tensor, fisher: Tensor) -> Tensor:
    """Return the second-order change of the loss, ``w^2 F / 2``, with the diagonal of the empirical Fisher matrix.

    References:
        LeCun et al., Optimal brain damage, NeurIPS 1989.
    """
    return weight.detach().float().square() * fisher / 2


def wanda(weight: Tensor, rms: Tensor) -> Tensor:
    """Return ``|w| * ||x||`` with the root mean square of each input, ``(columns,)``.

    References:
        Sun et al., A simple and effective pruning approach for large language models, https://arxiv.org/abs/2306.11695.
    """
    return weight.detach().float().abs() * rms


def random_scores(layers: Mapping[str, nn.Linear], seed: int) -> Score:
    """Score weights at random: the baseline any importance must beat. The same seed gives the same scores."""

    def score(path: str, rows: slice) -> Tensor:
        # A generator on the CPU looks at 32 bits of its seed only: sums and shifts of numbers would soon repeat.
        mixed = zlib.crc32(f"{seed}/{path}/{rows.start or 0}".encode())
        generator = torch.Generator().manual_seed(mixed)
        weight = layers[path].weight[rows]
        return torch.rand(weight.shape, generator=generator, dtype=torch.float32, device="cpu").to(weight.device)

    return score


def wanda_scores(model: nn.Module, layers: Mapping[str, nn.Linear], seeing: Observation, context: Context) -> Score:
    """Observe the layers' inputs in one pass and score by :func:`wanda`."""
    rms = input_rms(model, layers, context, seeing)
    return lambda path, rows: wanda(layers[path].weight[rows], rms[path])


def scores(model: nn.Module, layers: Mapping[str, nn.Linear], config: UnstructuredConfig, context: Context) -> Score:
    """Return the scores that ``config.importance`` asks for; observes calibration images where it needs any."""
    if config.needs_labels:
        seen = mean_gradients(model, layers, context, config, squared=config.importance != "taylor")
        return gradient_scores(layers, seen, config.importance)
    makers: dict[str, Callable[[], Score]] = {
        "magnitude": lambda: magnitude(layers),
        "random": lambda: random_scores(layers, context.seed),
        "lamp": lambda: lamp_scores(layers),
        "wanda": lambda: wanda_scores(model, layers, config, context),
    }
    return makers[config.importance]()


def gradient_scores(layers: Mapping[str, nn.Linear], seen: Mapping[str, GradientSums], importance: str) -> Score:
    """Score by :func:`taylor` from mean gradients, or by :func:`optimal_brain_damage` from mean squared ones."""
    formula = taylor if importance == "taylor" else optimal_brain_damage
    return lambda path, rows: formula(layers[path].weight[rows], seen[path].weight[rows])


def lamp_scores(layers: Mapping[str, nn.Linear]) -> Score:
    """Score by :func:`lamp`; kept in memory, because sorting every layer for each pass anew would triple the time."""
    kept = {path: lamp(layer.weight) for path, layer in layers.items()}
    return lambda path, rows: kept[path][rows]
