"""Epochs, updates, validation, the best weights, and an interrupted training taken up again."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.adapt.augment import Example, augmented
from pah_opt.adapt.evaluation import Score, evaluate
from pah_opt.adapt.hidden import HiddenSplit
from pah_opt.adapt.isolation import seed_all
from pah_opt.adapt.processes import Processes, epoch_order, shared_batches, updates_in_epoch
from pah_opt.adapt.results import Epoch, TrainResult
from pah_opt.adapt.schedule import adamw, lr_factor, set_lr
from pah_opt.adapt.snapshots import Checkpoint, optimizer_moments, put_back, restore_moments, values_of
from pah_opt.errors import DataError, UnsupportedModelError
from pah_opt.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pah_opt.adapt.job import Job
    from pah_opt.adapt.objective import Objective
    from pah_opt.splits import Batch


class _DivergedError(Exception):
    """Loss, gradients or weights are not finite; never leaves this module."""


@dataclass
class _State:
    """What has happened so far; everything a resumed training must know, as JSON data."""

    history: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    hits: int = 0
    seen: int = 0
    best_epoch: int | None = None
    best_score: tuple[float, float] | None = None
    stale: int = 0
    seconds: float = 0.0
    stopped: str | None = None


class Loop:
    """One training of one model; made and run by :func:`pah_opt.adapt.training.fit`.

    Args:
        job: what is trained, on what, and how.
        parameters: the parameters that are trained, by name.
        processes: who shares the work.
        objective: the loss.
        progress: shows progress, in the main process.
        on_epoch: called with each epoch's record, in the main process.
    """

    def __init__(
        self,
        job: Job,
        parameters: dict[str, nn.Parameter],
        processes: Processes,
        objective: Objective,
        progress: Progress,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> None:
        processes.check(job.settings.batch_size)
        self.model, self.train, self.validation = job.model, job.train, job.validation
        self.settings, self.adapter, self.seed = job.settings, job.adapter, job.seed
        self.parameters, self.processes, self.objective = parameters, processes, objective
        self.progress = progress if processes.is_main else Progress()
        self.on_epoch = on_epoch if processes.is_main else None
        self.optimizer = adamw(parameters, job.settings, job.rates())
        self.per_epoch = updates_in_epoch(len(job.train), job.settings.batch_size, processes.count)
        self.total = self.settings.steps or self.settings.epochs * self.per_epoch
        self.step = 0
        self.state = _State()
        self.diverged = False
        self._resumed_seconds = 0.0
        self._good = values_of(job.model, parameters)
        self._checkpoint: Path | None = None
        self._identity = ""
        self._every_steps: int | None = None
        self._every_seconds: float | None = None
        if not self.per_epoch:
            raise DataError(
                f"{job.train.name} has {len(job.train)} images, fewer than there are processes ({processes.count})"
            )

    def keep_checkpoints(self, path: Path, identity: str, *, steps: int | None, seconds: float | None) -> None:
        """Write the state to ``path`` after each epoch, and go on from it where it is there.

        Args:
            path: of the file.
            identity: of the training.
            steps: write it after so many updates too.
            seconds: write it during an epoch too, once it is older than this.
        """
        self._checkpoint, self._identity = path, identity
        self._every_steps, self._every_seconds = steps, seconds
        if path.exists():
            stored = Checkpoint.load(path)
            stored.check(identity, path)
            self._resume(stored)

    def run(self) -> TrainResult:
        """Train to the end, and leave the best weights in the model."""
        self._saved_at = time.perf_counter()
        self._started = self._saved_at - self._resumed_seconds
        self._wrapped, self._stepper = self.processes.prepare(self.model, self.optimizer)
        try:
            for _ in self.progress.track(self._updates(), "training", total=self.total - self.step):
                pass
        except _DivergedError as reason:
            self._give_up(str(reason))
        finally:
            self.processes.release(self._wrapped)
        if self.state.best_epoch is not None:
            put_back(self.model, self._good)
        return self._result()

    def _updates(self) -> Iterator[None]:
        """Do what remains to be done, yielding after each update."""
        while self.step < self.total and self.state.stopped is None:
            epoch, position = divmod(self.step, self.per_epoch)
            order = epoch_order(len(self.train), self.seed, epoch)
            size = self.settings.batch_size
            # Cached hidden states come in several views of each image, one for each epoch.
            train = self.train.at_epoch(epoch) if isinstance(self.train, HiddenSplit) else self.train
            for batch, whole in shared_batches(train, order, size, self.processes, skip=position):
                self._update(batch, whole)
                yield
                if self._epoch_is_over:
                    self._end_epoch(epoch)
                    break
                if self._save_is_due:
                    self._save()

    @property
    def _save_is_due(self) -> bool:
        if self._every_steps is not None and self.step % self._every_steps == 0:
            return True
        return self._every_seconds is not None and time.perf_counter() - self._saved_at >= self._every_seconds

    @property
    def _epoch_is_over(self) -> bool:
        return self.step % self.per_epoch == 0 or self.step == self.total

    def _update(self, batch: Batch, whole: int) -> None:
        self.model.train()
        # Seeded by place, not in sequence, so that a resumed training draws what it would have drawn.
        seed_all(self.seed, self.step, self.processes.rank)
        factor = lr_factor(self.step, self.total, self.settings.warmup)
        set_lr(self.optimizer, factor)
        loss, hits = self._gradients(self._example(batch), whole)
        self._check_finite(loss, "the loss")
        norm = self.processes.clip(list(self.parameters.values()), self.settings.clip_norm or math.inf)
        self._check_finite(norm, "the gradient's norm")
        self._stepper.step()
        self._stepper.zero_grad(set_to_none=True)
        self.step += 1
        self.state.losses.append(loss)
        self.state.hits += hits
        self.state.seen += whole

    def _example(self, batch: Batch) -> Example:
        device = self.processes.device
        pixels, labels = batch.pixel_values.to(device), batch.labels.to(device)
        return augmented(pixels, labels, self.settings.augmentation, len(self.train.class_names))

    def _gradients(self, example: Example, whole: int) -> tuple[float, int]:
        """Accumulate gradients of the mean loss over the whole batch; return that loss and the hits."""
        size = math.ceil(len(example.labels) / self.settings.accumulation)
        parts = [Example(*part) for part in zip(*(torch.split(tensor, size) for tensor in example), strict=True)]
        sums = torch.zeros(2, dtype=torch.float64, device=self.processes.device)
        for index, part in enumerate(parts):
            with self.processes.without_exchange(self._wrapped, last=index == len(parts) - 1):
                with self.processes.autocast():
                    logits = self._logits(part.pixels)
                    loss = self.objective(logits, part) / whole
                self.processes.backward(loss)
            sums += torch.stack([loss.detach().double(), (logits.detach().argmax(1) == part.labels).sum().double()])
        loss_sum, hits = self.processes.sum(sums).tolist()
        return loss_sum, int(hits)

    def _logits(self, pixels: Tensor) -> Tensor:
        logits = self.adapter.logits(self._wrapped(pixels))
        if logits.shape[-1] != len(self.train.class_names):
            raise DataError(
                f"the model's head has {logits.shape[-1]} classes, {self.train.name} has "
                f"{len(self.train.class_names)}; fit a head for these classes first (pah_opt.adapt)"
            )
        return logits

    def _check_finite(self, value: float, what: str) -> None:
        if math.isfinite(value):
            return
        if self.step == 0:
            raise UnsupportedModelError(
                f"{what} is {value} before the first update: the weights or images hold NaN, infinity or huge values"
            )
        raise self._diverged(f"{what} became {value} at update {self.step + 1}")

    def _check_weights(self) -> None:
        """Look at the trained weights: no loss has been computed with those of the last update."""
        for name, parameter in self.parameters.items():
            if not torch.isfinite(parameter).all():
                raise self._diverged(f"{name} holds NaN or infinity after update {self.step}")

    def _diverged(self, what: str) -> _DivergedError:
        return _DivergedError(
            f"{what} of {self.total}; use a lower lr (now {self.settings.lr:g}), a longer warmup, or clip_norm"
        )

    def _give_up(self, reason: str) -> None:
        self.diverged = True
        kept = self.state.best_epoch or len(self.state.history)
        where = f"the weights of epoch {kept} are kept" if kept else "the weights from before training are put back"
        self.state.stopped = f"{reason}; {where}"
        put_back(self.model, self._good)
        self.progress.message(self.state.stopped)

    def _elapsed(self) -> float:
        return time.perf_counter() - self._started

    def _end_epoch(self, epoch: int) -> None:
        self._check_weights()
        score = self._validate()
        losses = self.state.losses[epoch * self.per_epoch :]
        lr = max(float(group["lr"]) for group in self.optimizer.param_groups)
        record = Epoch(
            epoch=epoch + 1,
            step=self.step,
            train_loss=sum(losses) / len(losses),
            train_accuracy=self.state.hits / self.state.seen,
            validation_loss=score.loss if score else None,
            validation_accuracy=score.accuracy if score else None,
            lr=lr,
            # What earlier epochs have not taken: an epoch begun before an interruption counts from its start.
            seconds=self._elapsed() - sum(earlier["seconds"] for earlier in self.state.history),
        )
        self.state.history.append(asdict(record))
        self.state.hits = self.state.seen = 0
        self._judge(record.epoch, score)
        self.progress.message(str(record))
        if self.on_epoch is not None:
            self.on_epoch(record)
        self._save()

    def _validate(self) -> Score | None:
        if self.validation is None:
            return None
        # As many images at once as in training, where a batch is run in parts and shared to save memory.
        size = math.ceil(self.settings.batch_size / (self.settings.accumulation * self.processes.count))
        return evaluate(self.model, self.validation, self.adapter, batch_size=size, processes=self.processes)

    def _judge(self, epoch: int, score: Score | None) -> None:
        """Keep these weights if they are the best yet; stop when none were better for too long."""
        state, patience = self.state, self.settings.early_stop
        if score is None:
            self._good = values_of(self.model, self.parameters)
            return
        rank = (score.accuracy, -score.loss)
        if state.best_score is None or rank > state.best_score:
            state.best_epoch, state.best_score, state.stale = epoch, rank, 0
            self._good = values_of(self.model, self.parameters)
            return
        state.stale += 1
        if patience is not None and state.stale >= patience and self.step < self.total:
            state.stopped = (
                f"no better validation result for {state.stale} epochs; epoch {state.best_epoch} was the best"
            )

    def _save(self) -> None:
        if self._checkpoint is None or not self.processes.is_main:
            return
        self.state.seconds = self._elapsed()
        # At the end of an epoch without validation images, the last good weights are those trained.
        best = self._good if self.state.best_epoch is not None or not self._epoch_is_over else {}
        values = values_of(self.model, self.parameters)
        moments = optimizer_moments(self.optimizer, self.parameters)
        Checkpoint(self._identity, self.step, asdict(self.state), values, best, moments).save(self._checkpoint)
        self._saved_at = time.perf_counter()  # from the end: however long it takes, training gets on

    def _resume(self, stored: Checkpoint) -> None:
        self.state = _State(**stored.progress)
        self._resumed_seconds = self.state.seconds
        if self.state.best_score is not None:
            self.state.best_score = (self.state.best_score[0], self.state.best_score[1])
        self.step = stored.step
        put_back(self.model, stored.values)
        restore_moments(self.optimizer, self.parameters, stored.moments)
        self._good = stored.best or stored.values

    def _result(self) -> TrainResult:
        return TrainResult(
            history=tuple(Epoch(**record) for record in self.state.history),
            losses=tuple(self.state.losses),
            steps=self.step,
            seconds=self._elapsed(),
            best_epoch=self.state.best_epoch,
            stopped=self.state.stopped,
            resumed_seconds=self._resumed_seconds,
        )
