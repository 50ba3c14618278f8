"""The one training loop: fine-tuning, recovery after pruning, quantization-aware training and distillation."""

from __future__ import annotations

import copy
import warnings
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pah_opt.adapt.isolation import restored_flags, restored_randomness
from pah_opt.adapt.job import Job
from pah_opt.adapt.loop import Loop
from pah_opt.adapt.objective import Objective, watching_outputs
from pah_opt.adapt.parameters import freeze, recomputed_blocks
from pah_opt.adapt.processes import Processes
from pah_opt.adapt.settings import TrainSettings
from pah_opt.errors import DataError
from pah_opt.models.zeros import ZeroKeeper
from pah_opt.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import torch
    from torch import nn

    from pah_opt.adapt.results import Epoch, TrainResult
    from pah_opt.layout import ModelAdapter
    from pah_opt.splits import Split

CHECKPOINT_FILE = "training.safetensors"


def forget_checkpoint(folder: Path) -> None:
    """Remove the state of a finished training, and the folder where nothing else is in it."""
    with suppress(OSError):
        (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
        folder.rmdir()


def fit(
    model: nn.Module,
    train: Split,
    settings: TrainSettings | None = None,
    *,
    adapter: ModelAdapter,
    validation: Split | None = None,
    teacher: nn.Module | None = None,
    keep_zeros: bool | Collection[str] = True,
    checkpoint: str | Path | None = None,
    checkpoint_steps: int | None = None,
    checkpoint_seconds: float | None = None,
    progress: Progress | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    seed: int = 0,
    origin: str | None = None,
) -> TrainResult:
    """Train ``model`` in place.

    The same seed, images, settings and versions give the same weights, bit for bit on the CPU. Random state, flags and
    modes are as before afterwards; no gradient, hook or mask is left on the model. Under ``accelerate launch`` several
    processes share each batch: with the same result up to rounding without augmentation and dropout, which each
    process draws by itself.

    Args:
        model: float32 weights; a parameter without ``requires_grad`` is not trained.
        train: training images.
        settings: how to train.
        adapter: takes logits out of outputs, and knows the blocks.
        validation: images to judge each epoch by; the best epoch's weights are kept. Needed for ``early_stop``.
        teacher: a model of the same family to learn from, when the settings distil.
        keep_zeros: weights that are zero stay zero, except in linear layers of nothing but zeros, which are new; or the
            paths of the linear layers whose zeros stay.
        checkpoint: folder for the state of the training: written after each epoch, and where it is there, training goes
            on from it, with the same result as without the interruption.
        checkpoint_steps: write it after so many updates too.
        checkpoint_seconds: write it during an epoch too, once it is older than this.
        progress: shows progress, with the time left.
        on_epoch: called with each epoch's record when it is over, in the main process.
        seed: of the order of images, augmentation and dropout.
        origin: a hash of what the weights come from, by which a checkpoint is told from those of other trainings in
            place of the weights; for weights that are not the same to the last bit when they are computed again.

    Returns:
        History and reasons; ``stopped`` says why training ended early. When the loss turns NaN, training stops, the
        last good weights are put back, and a RuntimeWarning says so.

    Raises:
        DataError: images or labels do not fit.
        UnsupportedModelError: there is nothing to train, a freeze pattern matches nothing, or the loss is NaN before
            the first update.
        MissingBackendError: accelerate is not installed.
        ArtifactError: the checkpoint cannot be written, is damaged, or belongs to another training.
    """
    job = Job(model, adapter, train, validation, settings or TrainSettings(), seed, teacher, origin)
    _check(job)
    with ExitStack() as stack:
        stack.enter_context(restored_randomness())
        stack.enter_context(restored_flags(model))
        parameters = freeze(model, job.settings.freeze)
        device = next(iter(parameters.values())).device
        processes = Processes(device, job.settings.mixed_precision)
        stack.enter_context(processes.holding(model))
        if keep_zeros:
            stack.enter_context(ZeroKeeper(model, None if keep_zeros is True else keep_zeros))
        objective = _objective(stack, job, processes.device)
        if job.settings.checkpointing:
            stack.enter_context(recomputed_blocks(model, job.block_paths()))
        loop = Loop(job, parameters, processes, objective, progress or Progress(), on_epoch)
        if checkpoint is not None:
            identity = job.identity(parameters, processes.count)
            loop.keep_checkpoints(
                Path(checkpoint) / CHECKPOINT_FILE, identity, steps=checkpoint_steps, seconds=checkpoint_seconds
            )
        result = loop.run()
    if loop.diverged:
        warnings.warn(f"training stopped: {result.stopped}", RuntimeWarning, stacklevel=2)
    return result


def _check(job: Job) -> None:
    train, validation, settings = job.train, job.validation, job.settings
    for split in (train, validation):
        if split is not None and len(split) == 0:
            raise DataError(f"{split.name} is empty: there is nothing to train or validate on")
    if validation is not None and validation.class_names != train.class_names:
        raise DataError(
            f"{train.name} and {validation.name} have different classes; cut validation images out of training ones"
        )
    if settings.early_stop is not None and validation is None:
        raise DataError("early_stop needs validation images; pass validation=… or leave early_stop out")
    if job.distils and job.teacher is None:
        raise DataError("distillation needs a teacher; pass teacher=… or set distill and distill_features to 0")


def _objective(stack: ExitStack, job: Job, device: torch.device) -> Objective:
    settings, adapter = job.settings, job.adapter
    if job.teacher is None or not job.distils:
        return Objective(settings, adapter)
    teacher = _placed(job.teacher, device)
    stack.enter_context(restored_flags(teacher))
    teacher.eval()
    layout = adapter.layout(teacher)
    objective = Objective(settings, adapter, teacher, layout.image_size)
    if settings.distill_features:
        objective.student_states = stack.enter_context(watching_outputs(job.model, job.block_paths()))
        theirs = [block.path for block in layout.blocks]
        objective.teacher_states = stack.enter_context(watching_outputs(teacher, theirs))
    return objective


def _placed(teacher: nn.Module, device: torch.device) -> nn.Module:
    """Return the teacher on a device; a copy when it is elsewhere, because it is the caller's."""
    if next(teacher.parameters()).device == device:
        return teacher
    return copy.deepcopy(teacher).to(device)
