"""Alternate pruning and training along a schedule of rising sparsity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pah_opt.adapt import fit
from pah_opt.errors import DataError
from pah_opt.models.calibration import check_images
from pah_opt.models.supply import evenly_spaced
from pah_opt.models.zeros import zeroed_linears
from pah_opt.strategies.unstructured.importance import scores
from pah_opt.strategies.unstructured.prune import prune
from pah_opt.strategies.unstructured.sparsegpt import sparsegpt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from pah_opt.adapt import TrainResult
    from pah_opt.optimizer import Context
    from pah_opt.splits import Split
    from pah_opt.strategies.unstructured.gradual_config import GradualConfig


def prune_gradually(model: nn.Module, layers: Mapping[str, nn.Linear], config: GradualConfig, context: Context) -> None:
    """Prune ``layers`` a little, train the whole model with its zeros held, and so on, in place.

    Reports each round's sparsity and the loss its training ended with.

    Raises:
        DataError: there are no training images, or they do not fit.
    """
    if context.training is None:
        raise DataError("gradual-pruning trains, and there are no training images; pass data with training images")
    images: Split = context.training
    # Some of them: the first pruning comes before any training that would look at them.
    check_images(evenly_spaced(images, config.batch_size), context.adapter.layout(model), config.batch_size)
    rounds: list[dict[str, Any]] = []
    for index, zeros in enumerate(config.schedule):
        _prune_to(zeros, model, layers, config, context)
        result = _train(model, images, layers, config, context, index)
        rounds.append({"sparsity": zeros, "updates": result.steps, "train_loss": _last(result.losses)})
    context.record("rounds", rounds)


def _prune_to(
    zeros: float, model: nn.Module, layers: Mapping[str, nn.Linear], config: GradualConfig, context: Context
) -> None:
    if config.method == "sparsegpt":
        sparsegpt(model, layers, config.repairing(zeros), context)
        return
    scoring = config.scoring()
    layout = context.adapter.layout(model)
    prune(layers, scores(model, layers, scoring, context), zeros, scoring.competes_in, layout)


def _train(
    model: nn.Module, images: Split, layers: Mapping[str, nn.Linear], config: GradualConfig, context: Context,
    index: int,
) -> TrainResult:  # fmt: skip
    distils = config.distill or config.distill_features
    # Steps before this one may have pruned other layers.
    zeroed = {*layers, *zeroed_linears(model, [block.path for block in context.adapter.layout(model).blocks])}
    return fit(
        model, images, config, adapter=context.adapter, teacher=context.reference if distils else None,
        keep_zeros=zeroed, progress=context.progress, seed=context.seed + index,
    )  # fmt: skip


def _last(losses: tuple[float, ...]) -> float | None:
    return losses[-1] if losses else None
