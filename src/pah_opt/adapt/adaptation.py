"""Take a pretrained Vision Transformer to the classes of a data set."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pah_opt.adapt.config import AdaptConfig, Mode
from pah_opt.adapt.evaluation import Score, evaluate
from pah_opt.adapt.heads import replace_head
from pah_opt.adapt.isolation import restored_flags, restored_randomness, seed_all
from pah_opt.adapt.modes import Work, first_block, run
from pah_opt.adapt.processes import Processes
from pah_opt.adapt.tensorboard import epoch_log
from pah_opt.data import (
    as_data,
    check_input,
    check_several_classes,
    check_trained_classes,
    label_names,
    training_images,
    validation_split,
)
from pah_opt.errors import ArtifactError
from pah_opt.models import find_adapter
from pah_opt.models.disk import os_errors
from pah_opt.progress import Progress, default_progress
from pah_opt.registry import default_registry

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.adapt.results import TrainResult
    from pah_opt.layout import Layout, ModelAdapter
    from pah_opt.splits import Data, Split


@dataclass(frozen=True)
class Adaptation:
    """A model adapted to new classes, and what it took.

    Args:
        model: in ``eval`` mode.
        config: how it was adapted.
        class_names: of the head, in order; also in the model's config.
        result: how training went; ``head`` has one epoch, whose losses are those of the solver.
        test: loss and accuracy on the test images.
        seconds: wall-clock time, without measuring on the test images; that of interrupted runs included.
        parameters: in all.
        trained_parameters: those that training could change.
        weights_bytes: of all parameters.
    """

    model: nn.Module
    config: AdaptConfig
    class_names: tuple[str, ...]
    result: TrainResult
    test: Score
    seconds: float
    parameters: int
    trained_parameters: int
    weights_bytes: int

    def to_data(self) -> dict[str, Any]:
        """Return everything but the model as JSON data; of the config, what the mode looks at."""
        figures = ("class_names", "seconds", "parameters", "trained_parameters", "weights_bytes")
        data = {name: getattr(self, name) for name in figures}
        config = self.config.model_dump(mode="json", include=set(self.config.used_fields))
        return {**data, "config": config, "test": self.test._asdict(), "training": self.result.to_data()}

    def save(self, folder: str | Path, processor: Any = None) -> bool:
        """Write model and processor as transformers does, ``adaptation.json`` with every epoch, and ``curves.png``.

        Returns:
            False where matplotlib is not installed, and no curves were drawn.

        Raises:
            ArtifactError: the model cannot save itself, or the folder cannot be written.
        """
        from pah_opt.adapt.curves import save_curves

        place = Path(folder)
        save_model = getattr(self.model, "save_pretrained", None)
        if not callable(save_model):
            raise ArtifactError(f"a {type(self.model).__name__} has no save_pretrained; save its state_dict instead")
        try:
            with os_errors():
                save_model(place)
            if processor is not None:
                processor.save_pretrained(place)
            Path(place, "adaptation.json").write_text(json.dumps(self.to_data(), indent=2), encoding="utf-8")
        except OSError as error:
            raise ArtifactError(
                f"{place} cannot be written: {error}; free some space, or name another folder"
            ) from error
        return save_curves(self.result, place / "curves.png")


def adapt(
    model: nn.Module,
    data: Any,
    mode: Mode = "full",
    *,
    cache: bool | str | Path = True,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    adapter: ModelAdapter | None = None,
    inplace: bool = False,
    progress: Progress | None = None,
    tensorboard: str | Path | None = None,
    seed: int = 0,
    **options: Any,
) -> Adaptation:
    """Adapt a pretrained Vision Transformer to the classes of ``data``.

    The head is replaced first, unless its labels are those of the data already; label names travel with the model.

    Args:
        model: a classifier; left untouched unless ``inplace``.
        data: :class:`~pah_opt.splits.Data` with training images; the test images are only measured on.
        mode: ``full`` trains every weight; ``last-layers`` the last blocks, the final norm and the head; ``head`` fits
            a linear classifier on frozen features in seconds; ``lora`` trains low-rank additions and merges them.
        cache: ``last-layers`` computes hidden states of the frozen blocks once; a folder keeps them for later runs,
            False computes them anew in every epoch. With mixup the two are not the same training: it blends hidden
            states where they are cached, images where they are not.
        checkpoint: folder for the state of the training, which goes on from there after an interruption; written after
            each epoch.
        checkpoint_seconds: write it during an epoch too, once it is older than this.
        adapter: of the model; found by default.
        inplace: change ``model`` itself, which saves the copy.
        progress: shows progress; by default bars on a terminal.
        tensorboard: folder for the losses, accuracies and learning rate of each epoch, for TensorBoard.
        seed: of the new head, the validation split and the training.
        **options: fields of :class:`~pah_opt.adapt.config.AdaptConfig`, such as ``epochs=5`` or ``last_blocks=2``.

    Returns:
        The adapted model, its accuracy, and what it took.

    Raises:
        DataError: images or labels cannot be used, do not fit or are of one class, or there is no room for the cache.
        RecipeError: the mode or an option is unknown, out of range, or without effect in this mode.
        UnsupportedModelError: no adapter knows the model, or it has no classifier.
        MissingBackendError: accelerate, peft or tensorboard is wanted and not installed.
        ArtifactError: the checkpoint cannot be used, or a folder cannot be written.
    """
    config = AdaptConfig.of(mode, options)
    parts = as_data(data)
    adapter = adapter or find_adapter(model, default_registry().adapters)
    own = adapter.prepare(model if inplace else copy.deepcopy(model))
    _check(parts, config, adapter.layout(own))
    started = time.perf_counter()
    processes = Processes(next(own.parameters()).device, config.mixed_precision)
    log = epoch_log(tensorboard if processes.is_main else None)
    with log as on_epoch, restored_randomness(), restored_flags(own), processes.holding(own):
        seed_all(seed)  # peft draws its first terms from torch's global generator
        if label_names(own) != parts.test.class_names:
            replace_head(own, adapter, parts.test.class_names, seed)
        train, validation = _training_splits(parts, config, seed)
        shown = (progress or default_progress()) if processes.is_main else Progress()
        work = Work(
            own, adapter, adapter.layout(own), train, validation, config, processes, shown, seed, checkpoint,
            checkpoint_seconds, on_epoch,
        )  # fmt: skip
        result, trained = run(work, cache=cache)
        seconds = time.perf_counter() - started + result.resumed_seconds
        score = evaluate(own, parts.test, adapter, processes=processes)
    return Adaptation(
        model=own.eval(),
        config=config,
        class_names=parts.test.class_names,
        result=result,
        test=score,
        seconds=seconds,
        parameters=sum(parameter.numel() for parameter in own.parameters()),
        trained_parameters=trained,
        weights_bytes=sum(parameter.nbytes for parameter in own.parameters()),
    )


def _check(parts: Data, config: AdaptConfig, layout: Layout) -> None:
    """Refuse what cannot work before a head is fitted."""
    for split in (training_images(parts), parts.test):
        check_input(split, layout)
    check_several_classes(training_images(parts))
    check_trained_classes(training_images(parts), parts.test)
    if config.mode == "last-layers":
        first_block(config, layout)


def _training_splits(data: Data, config: AdaptConfig, seed: int) -> tuple[Split, Split | None]:
    train = training_images(data)
    return validation_split(train, config.validation, seed) if config.validation else (train, None)
