"""The ways to adapt a model: all of it, its last layers, its head, or low-rank additions."""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pah_opt.adapt.caching import HiddenStates, Views
from pah_opt.adapt.config import refusal
from pah_opt.adapt.features import fit_head
from pah_opt.adapt.hidden import starting_at
from pah_opt.adapt.known import KnownLayout
from pah_opt.adapt.lora import LoraSettings, lora_library, low_rank_additions
from pah_opt.adapt.parameters import refuse_untrainable, unfrozen
from pah_opt.adapt.results import Epoch, TrainResult
from pah_opt.adapt.settings import Augmentation, TrainSettings
from pah_opt.adapt.snapshots import digest_of, state_of
from pah_opt.adapt.training import fit
from pah_opt.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from pah_opt.adapt.config import AdaptConfig
    from pah_opt.adapt.heads import LinearFit
    from pah_opt.adapt.processes import Processes
    from pah_opt.layout import Layout, ModelAdapter
    from pah_opt.progress import Progress
    from pah_opt.splits import Split


@dataclass(frozen=True)
class Work:
    """One adaptation: what is given, and what is asked for.

    Args:
        model: changed in place; its head is of the right width.
        adapter: of the model.
        layout: of the model.
        train: training images, without those for validation.
        validation: images to judge epochs by.
        config: what is asked for.
        processes: give device and precision.
        progress: shows progress.
        seed: of everything random.
        checkpoint: folder for the state of the training; None for none.
        checkpoint_seconds: write it during an epoch too, once it is older than this.
        on_epoch: called with each epoch's record, in the main process.
    """

    model: nn.Module
    adapter: ModelAdapter
    layout: Layout
    train: Split
    validation: Split | None
    config: AdaptConfig
    processes: Processes
    progress: Progress
    seed: int
    checkpoint: str | Path | None = None
    checkpoint_seconds: float | None = None
    on_epoch: Callable[[Epoch], None] | None = None

    @property
    def settings(self) -> TrainSettings:
        """The training loop's part of the config."""
        return TrainSettings(**self.config.model_dump(include=set(TrainSettings.model_fields)))


def run(work: Work, *, cache: bool | str | Path) -> tuple[TrainResult, int]:
    """Adapt the model; return how training went, and how many parameters it could change."""
    _ready_to_train(work)
    # Before the head is fitted: the last bits of that fit depend on the number of threads.
    origin = _origin(work) if work.checkpoint is not None and work.config.mode != "head" else None
    if work.config.mode == "head" or work.config.head_first:
        result = _head(work)
    if work.config.mode == "head":
        if work.on_epoch is not None:
            work.on_epoch(result.history[0])
        heads = tuple(f"{path}." for path in work.layout.classifiers)
        return result, sum(value.numel() for name, value in work.model.named_parameters() if name.startswith(heads))
    with ExitStack() as stack:
        if work.config.mode == "lora":
            settings = LoraSettings(work.config.lora_rank, work.config.lora_alpha)
            stack.enter_context(low_rank_additions(work.model, work.layout, settings))
        trained = sum(parameter.numel() for parameter in unfrozen(work.model, work.config.freeze).values())
        if work.config.mode == "last-layers" and cache is not False:
            folder = None if cache is True else Path(cache)
            return _from_cache(work, folder, origin), trained
        return _fit(work, work.train, work.validation, work.settings, origin), trained


def _ready_to_train(work: Work) -> None:
    """Freeze what the mode leaves alone, and refuse what cannot be trained, before images are run through the model."""
    if work.config.mode == "lora":
        lora_library()  # patterns may name what it adds
    elif work.config.mode != "head":
        if work.config.mode == "last-layers":
            _freeze_lower(work)
        refuse_untrainable(work.model, work.config.freeze)


def _origin(work: Work) -> str:
    """Hash the model as it was given, and all that will be done to it before it is trained."""
    parts = (digest_of(state_of(work.model)), work.config.model_dump_json())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _fit(
    work: Work, train: Split, validation: Split | None, settings: TrainSettings, origin: str | None
) -> TrainResult:
    return fit(
        work.model,
        train,
        settings,
        adapter=KnownLayout(work.adapter, work.layout),
        validation=validation,
        checkpoint=work.checkpoint,
        checkpoint_seconds=work.checkpoint_seconds,
        progress=work.progress,
        on_epoch=work.on_epoch,
        seed=work.seed,
        origin=origin,
    )


def _head(work: Work) -> TrainResult:
    started = time.perf_counter()
    fitted = fit_head(work.model, work.layout, work.train, work.validation, work.processes, work.progress)
    return _as_result(fitted, time.perf_counter() - started)


def _as_result(fitted: LinearFit, seconds: float) -> TrainResult:
    epoch = Epoch(
        epoch=1,
        step=len(fitted.losses),
        train_loss=fitted.losses[-1],
        train_accuracy=fitted.train_accuracy,
        validation_loss=fitted.validation_loss,
        validation_accuracy=fitted.validation_accuracy,
        lr=0.0,
        seconds=seconds,
    )
    return TrainResult(history=(epoch,), losses=fitted.losses, steps=len(fitted.losses), seconds=seconds)


def first_block(config: AdaptConfig, layout: Layout) -> int:
    """Return the number of the first block that ``last-layers`` trains.

    Raises:
        RecipeError: no block would be frozen.
    """
    count = len(layout.blocks)
    if config.last_blocks >= count:
        message = f"last_blocks is {config.last_blocks} and the model has {count} blocks"
        raise refusal([Problem(message, remedy="train fewer, or use mode 'full'")])
    return count - config.last_blocks


def _freeze_lower(work: Work) -> None:
    """Train nothing but the last blocks, the final norm and the classifiers."""
    last = [block.path for block in work.layout.blocks[first_block(work.config, work.layout) :]]
    trained = tuple(f"{path}." for path in (*last, work.layout.final_norm, *work.layout.classifiers))
    for name, parameter in work.model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name.startswith(trained))


def _from_cache(work: Work, folder: Path | None, origin: str | None) -> TrainResult:
    """Train on hidden states of the frozen blocks; augmentation has happened before they were computed."""
    first, how = first_block(work.config, work.layout), work.config.augmentation
    states = HiddenStates(work.model, work.layout, first, work.processes, folder, progress=work.progress)
    settings = work.settings.model_copy(update={"augmentation": Augmentation(mixup=how.mixup)})
    shown = Augmentation(flip=how.flip, crop=how.crop)
    with ExitStack() as stack:
        views = Views(shown, work.config.cached_views(len(work.train)), work.seed)
        train = stack.enter_context(states.of(work.train, views))
        validation = None
        if work.validation is not None:
            validation = stack.enter_context(states.of(work.validation, Views()))
        stack.enter_context(starting_at(work.model, work.layout, first))
        return _fit(work, train, validation, settings, origin)
