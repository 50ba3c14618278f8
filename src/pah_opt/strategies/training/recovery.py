"""Train one model as ``recover`` is told to, and record how it went."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pah_opt.adapt import fit
from pah_opt.adapt.problems import training_problems
from pah_opt.data import validation_split
from pah_opt.errors import DataError
from pah_opt.models.positions import at_input_size, size_problems
from pah_opt.models.zeros import zeroed_linears

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.optimizer import Context
    from pah_opt.splits import Split
    from pah_opt.strategies.training.recover import RecoverConfig


def problems(model: nn.Module, config: RecoverConfig, context: Context) -> list[str]:
    """Return why this model cannot be trained this way; looks at names, types and shapes only."""
    resized = config.input_size is not None
    found = training_problems(model, config, context.adapter, context.reference, same_size=resized)
    if config.input_size is not None:
        found += size_problems(context.adapter.layout(model), _square(config.input_size))
    return found


def recover(model: nn.Module, config: RecoverConfig, context: Context) -> nn.Module:
    """Train ``model`` in place and return it; on a dry run only see whether its input size can be changed.

    Raises:
        DataError: there are no training images, or they do not fit.
        UnsupportedModelError: the model's input size cannot be changed.
    """
    teacher = context.reference if config.distill or config.distill_features else None
    with ExitStack() as stack:
        if config.input_size is not None:
            # The teacher sees the same tokens; the caller's own is left as it is.
            teacher = copy.deepcopy(teacher)
            for each in (model, teacher):
                if each is not None:
                    stack.enter_context(at_input_size(each, context.adapter, _square(config.input_size)))
        if context.planning:
            return model
        training, validation = _images(config, context)
        zeroed = zeroed_linears(model, [block.path for block in context.adapter.layout(model).blocks])
        context.record("layers_with_zeros_kept", len(zeroed))
        result = fit(
            model, training, config,
            adapter=context.adapter, validation=validation, teacher=teacher, keep_zeros=zeroed,
            progress=context.progress, seed=context.seed,
        )  # fmt: skip
    for name, value in result.to_data().items():
        context.record(name, value)
    return model


def _square(side: int) -> tuple[int, int]:
    return (side, side)


def _images(config: RecoverConfig, context: Context) -> tuple[Split, Split | None]:
    if context.training is None:
        raise DataError("recover trains, and there are no training images; pass data with training images")
    training = context.training if config.input_size is None else context.training.resized(*_square(config.input_size))
    if not config.validation:
        return training, None
    return validation_split(training, config.validation, context.seed)
