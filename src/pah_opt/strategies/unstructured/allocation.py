"""How many weights each layer loses when a sparsity is asked for over all of them, and which outputs matter most.

The same share everywhere is simple and far from best: layers differ in what they can spare. Counting how many weights
of each layer a loss-based importance would drop globally gives each layer its share; the repair then decides within
the layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pah_opt.strategies.unstructured.gradients import mean_gradients
from pah_opt.strategies.unstructured.importance import gradient_scores, lamp_scores
from pah_opt.strategies.unstructured.masking import zero_count
from pah_opt.strategies.unstructured.prune import global_masks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from pah_opt.optimizer import Context
    from pah_opt.strategies.unstructured.config import SparseGptConfig
    from pah_opt.strategies.unstructured.prune import Score


@dataclass(frozen=True)
class Allocation:
    """What each layer loses.

    Args:
        counts: weights that become zero, by layer.
        outputs: how much an error in each output of a layer matters, ``(out,)``; empty when that is not known.
    """

    counts: Mapping[str, int]
    outputs: Mapping[str, Tensor] = field(default_factory=dict)


def allocate(
    model: nn.Module, layers: Mapping[str, nn.Linear], config: SparseGptConfig, context: Context
) -> Allocation:
    """Share the zeros that ``config`` asks for out over ``layers``; observes labelled images where it needs any."""
    if config.nm or config.allocation == "uniform":
        return Allocation({path: zero_count(config.zeros, layer.weight.numel()) for path, layer in layers.items()})
    if config.allocation == "lamp":
        return Allocation(global_counts(layers, lamp_scores(layers), config.zeros))
    seen = mean_gradients(model, layers, context, config, squared=config.allocation == "obd")
    counts = global_counts(layers, gradient_scores(layers, seen, config.allocation), config.zeros)
    return Allocation(counts, {path: sums.outputs for path, sums in seen.items()})


def global_counts(layers: Mapping[str, nn.Linear], score: Score, zeros: float) -> dict[str, int]:
    """Return how many of each layer's weights are among the lowest-scored of all; together exactly their share."""
    counts = dict.fromkeys(layers, 0)
    for path, _, drop in global_masks(layers, score, zeros):
        counts[path] += int(drop.sum())
    return counts
