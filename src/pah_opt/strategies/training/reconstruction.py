"""Walk through a changed model and the dense one side by side, and refit what writes the residual stream."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pah_opt.adapt.features import fit_head
from pah_opt.adapt.problems import head_problems, hidden_state_problems
from pah_opt.adapt.processes import Processes
from pah_opt.data import balanced_subset, validation_split
from pah_opt.errors import DataError, UnsupportedModelError
from pah_opt.models.calibration import BlockRunner, enough_images
from pah_opt.models.precision import as_float32, worked_on_in_float32
from pah_opt.models.shortfall import Shortfall
from pah_opt.models.supply import FEWEST_IMAGES, too_few
from pah_opt.models.zeros import sparse_linears, zeroed_linears

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pah_opt.layout import Block
    from pah_opt.optimizer import Context
    from pah_opt.splits import Split
    from pah_opt.strategies.training.reconstruct import ReconstructConfig


VALIDATION = 0.1
"""Share of the classifiers' images that choose the penalty instead."""
FEWEST_PER_CLASS = 50
"""Training images of each class, on average, without which a classifier is not fitted."""


def problems(model: nn.Module, config: ReconstructConfig, context: Context) -> list[str]:
    """Return why there are too few images, hidden states cannot be compared, or classifiers fitted."""
    count = context.training_count
    found = [too_few(count)] if count < FEWEST_IMAGES else []
    if config.classifier == "fit":
        layout = context.adapter.layout(model)
        found += head_problems(model, layout, "leave classifier: fit out")
        found += _label_problems(count, layout.num_classes)
    if context.reference is None:
        return found
    return found + hidden_state_problems(
        model, context.reference, context.adapter, "put reconstruct before the step that changes them"
    )


def reconstruct(model: nn.Module, config: ReconstructConfig, context: Context) -> nn.Module:
    """Refit ``model`` in place and return it.

    Raises:
        DataError: there are too few images, or they do not fit.
        UnsupportedModelError: hidden states cannot be compared with the dense model's.
    """
    if context.reference is None:
        raise UnsupportedModelError("reconstruct follows the dense model, and there is none; run it in a recipe")
    images = enough_images(context.training, config.images, "reconstruct")
    # Before the first change: what stands in the way of the last step should not be found after minutes.
    labelled = _labelled(model, config, context) if config.classifier == "fit" else None
    with worked_on_in_float32(model) as work:
        _refit(work, as_float32(context.reference), images, config, context)
    if labelled is not None:
        _fit_classifiers(model, labelled, config, context)
    return model


def _refit(model: nn.Module, reference: nn.Module, images: Split, config: ReconstructConfig, context: Context) -> None:
    """Refit every block of ``model`` in place; both models in float32."""
    own, dense = (
        BlockRunner(
            each, context.adapter.layout(each), images, batch_size=config.batch_size, precision=config.mixed_precision
        )
        for each in (model, reference)
    )
    goals = matched_blocks(own, dense)
    context.record("images", len(images))
    context.record("matched_blocks", goals)
    work = _Work(own, dense, config)
    steps = list(enumerate(zip(own.layout.blocks, [-1, *goals[:-1]], goals, strict=True)))
    for index, (block, before, goal) in context.progress.track(steps, "reconstructing blocks", total=len(steps)):
        work.refit(index, block, range(before + 1, goal + 1))
    context.record("residual_error", relative_error(own.hidden, dense.hidden))


def _fit_classifiers(model: nn.Module, images: Split, config: ReconstructConfig, context: Context) -> None:
    layout = context.adapter.layout(model)
    train, validation = validation_split(images, VALIDATION, context.seed)
    processes = Processes(next(model.parameters()).device, config.mixed_precision)
    fitted = fit_head(model, layout, train, validation, processes, context.progress)
    context.record("classifier_images", len(images))
    context.record("classifier_validation_accuracy", fitted.validation_accuracy)


def _labelled(model: nn.Module, config: ReconstructConfig, context: Context) -> Split:
    """Return the images to fit classifiers on, once nothing stands in the way."""
    held = set(sparse_linears(model)) & set(context.adapter.layout(model).classifiers)
    if held:
        raise UnsupportedModelError(
            f"{min(held)} holds zeros on purpose, and fitted anew it would lose them; leave classifier: fit out"
        )
    training = enough_images(context.training, sys.maxsize, "classifier: fit")
    classes = len(training.class_names)
    images = balanced_subset(training, min(config.images_per_class * classes, len(training)), context.seed)
    problems = _label_problems(len(images), classes)
    if problems:
        raise DataError(problems[0])
    return images


def _label_problems(images: int, classes: int) -> list[str]:
    if images >= FEWEST_PER_CLASS * classes:
        return []
    message = (
        f"classifier: fit needs {FEWEST_PER_CLASS} training images of each class, and there are {images} of {classes} "
        "classes; pass more, or leave it out"
    )
    return [message]


class _Work:
    """Refits one block after another; both walks stand before the same place of the residual stream."""

    def __init__(self, own: BlockRunner, dense: BlockRunner, config: ReconstructConfig) -> None:
        self.own, self.dense, self.config = own, dense, config
        self.weights = _token_weights(own, config.prefix_weight)
        # As in recover: however few zeros there are, they may be there on purpose.
        self.zeroed = frozenset(zeroed_linears(own.model, [block.path for block in own.layout.blocks]))

    def refit(self, index: int, block: Block, run: Sequence[int]) -> None:
        """Refit block ``index`` to what blocks ``run`` of the dense model do, and go on to the next."""
        if len(run) == 1:  # otherwise there is no place of the dense model to compare the attention's with
            self._refit_attention(index, block, run[0])
        for step in run:
            self.dense.advance(step)
        self._refit_mlp(index, block)
        self.own.advance(index)

    def _refit_attention(self, index: int, block: Block, goal: int) -> None:
        writer, middle = block.attention.output, block.norms[1]
        theirs = self.dense.layout.blocks[goal].norms[1]
        shortfall = Shortfall(_linear(self.own.model, writer))
        passes = zip(
            self.own.hidden, self.own.inputs(index, (writer, middle)), self.dense.inputs(goal, (theirs,)), strict=True
        )
        for before, seen, wanted in passes:
            missing = _difference(wanted[theirs], seen[middle])
            shortfall.update(seen[writer], seen[middle] - before, missing, self.weights)
        self._make_up(writer, shortfall)

    def _refit_mlp(self, index: int, block: Block) -> None:
        writer, middle = block.mlp.fc2, block.norms[1]
        shortfall = Shortfall(_linear(self.own.model, writer))
        passes = zip(self.own.passes(index, (writer, middle)), self.dense.hidden, strict=True)
        for (seen, reached), wanted in passes:
            missing = _difference(wanted, reached)
            shortfall.update(seen[writer], reached - seen[middle], missing, self.weights)
        self._make_up(writer, shortfall)

    def _make_up(self, path: str, shortfall: Shortfall) -> None:
        if not shortfall.is_finite:
            raise DataError(f"inputs of {path} are not finite on the training images; check the model's weights")
        free = _linear(self.own.model, path).weight != 0 if path in self.zeroed else None
        shortfall.make_up(self.config.ridge, free=free)


def _token_weights(walk: BlockRunner, prefix_weight: float) -> Tensor:
    tokens = walk.hidden[0]
    weights = torch.ones(tokens.shape[1], device=tokens.device)
    weights[: walk.layout.prefix_tokens] = prefix_weight
    return weights


def _linear(model: nn.Module, path: str) -> nn.Linear:
    layer = model.get_submodule(path)
    if not isinstance(layer, nn.Linear):
        raise UnsupportedModelError(f"{path} is a {type(layer).__name__}; reconstruct refits nn.Linear")
    return layer


def _difference(wanted: Tensor, reached: Tensor) -> Tensor:
    if wanted.shape != reached.shape:
        raise UnsupportedModelError(
            f"hidden states of shape {tuple(reached.shape)} cannot follow the dense model's {tuple(wanted.shape)}; put "
            "reconstruct before the step that changes how many tokens there are"
        )
    return wanted.to(reached.device).float() - reached.float()


def relative_error(own: Iterable[Tensor], dense: Iterable[Tensor]) -> float:
    """Return the squared error of hidden states over the dense ones' variance."""
    error, variance = 0.0, 0.0
    for mine, wanted in zip(own, dense, strict=True):
        error += float(_difference(wanted, mine).square().mean())
        variance += float(wanted.float().var())
    return error / variance if variance else 0.0


def matched_blocks(own: BlockRunner, dense: BlockRunner) -> list[int]:
    """Return for each of a model's blocks the dense model's block whose output it should give; the last match.

    With as many blocks they are the same; where blocks were removed, each goes with the one whose output is nearest to
    its own, in order.
    """
    if len(own.layout.blocks) == len(dense.layout.blocks):
        return list(range(len(own.layout.blocks)))
    mine, theirs = (list(_outputs(walk)) for walk in (own, dense))
    goals: list[int] = []
    for index, output in enumerate(mine[:-1]):
        first, last = (goals[-1] + 1 if goals else 0), len(theirs) - len(mine) + index
        errors = [relative_error([output], [theirs[place]]) for place in range(first, last + 1)]
        goals.append(first + errors.index(min(errors)))
    return [*goals, len(theirs) - 1]


def _outputs(walk: BlockRunner) -> Iterable[Tensor]:
    """Yield each block's output on the first batch."""
    hidden = walk.hidden[0]
    for index in range(len(walk.layout.blocks)):
        hidden = walk.run_from(hidden, 0, [index])
        yield hidden
