"""Measure several models together, stage by stage: what they are, how right, how fast, at what cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pah_opt.errors import MeasurementError
from pah_opt.measure.accuracy import Predictions, at_chance, joined, predict
from pah_opt.measure.blocks import block_map
from pah_opt.measure.collected import Collected
from pah_opt.measure.environment import CpuWatch
from pah_opt.measure.extra import extra_figures
from pah_opt.measure.memory import measure_memory
from pah_opt.measure.model import model_figures
from pah_opt.measure.modes import evaluating
from pah_opt.measure.nvml import Gpu, Reading, open_gpu
from pah_opt.measure.provenance import origin_of, provenance
from pah_opt.measure.sharing import ProcessGroup
from pah_opt.measure.timing import Timed, time_models
from pah_opt.measure.trouble import is_out_of_memory, release_memory
from pah_opt.measure.utilization import matrix_rate
from pah_opt.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from pah_opt.measure.candidate import Candidate
    from pah_opt.measure.settings import Batch, MeasureSettings
    from pah_opt.metric import Metric
    from pah_opt.splits import Split

NOT_ASKED = "not asked for"
INTERRUPTED = "interrupted before it was measured"
AT_CHANCE = (
    "it is no better than chance on these images: its head, the labels or the preprocessing do not belong to it, or "
    "something ruined it"
)


@dataclass
class Session:
    """One run of measuring; :meth:`run` fills :attr:`collected`.

    Args:
        candidates: the models by name.
        settings: what and how long.
        baseline: name of the model the others are compared with.
        split: labelled test images, or None.
        metrics: figures that plugins add.
        weights_origin: where weights come from, for models that do not say.
        group: the processes that share the images; this one alone by default.
        progress: shows progress.
    """

    candidates: Mapping[str, Candidate]
    settings: MeasureSettings
    baseline: str
    split: Split | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    weights_origin: str | None = None
    group: ProcessGroup = field(default_factory=ProcessGroup)
    progress: Progress = field(default_factory=Progress)
    collected: dict[str, Collected] = field(init=False)
    rates: dict[torch.dtype, float] = field(default_factory=dict)
    interrupted: bool = False

    def __post_init__(self) -> None:
        """Get ready to watch the machine."""
        if self.baseline not in self.candidates:
            raise MeasurementError(
                f"there is no model {self.baseline!r} to compare with; models: {', '.join(self.candidates)}"
            )
        self.collected = {name: Collected(candidate) for name, candidate in self.candidates.items()}
        self.device = next(iter(self.candidates.values())).device
        self.gpu: Reading[Gpu] = open_gpu(self.device)
        self.watch = CpuWatch()
        self.split = _part(self.split, self.settings.max_images)

    def run(self) -> None:
        """Measure everything that was asked for; ctrl-C ends it early and keeps what is done.

        Raises:
            DataError: the images do not fit the models.
            MeasurementError: a model cannot be run, or a figure would mean nothing.
        """
        models = [candidate.model for candidate in self.candidates.values()]
        try:
            with evaluating(*models):
                for stage in self.progress.track(self._stages(), "measuring", total=len(self._stages())):
                    stage()
        except KeyboardInterrupt:
            self.interrupted = True

    def _stages(self) -> list[Callable[[], None]]:
        asked = self.settings.groups
        stages = [self._check, self._describe]
        stages += [self._accuracy] if "accuracy" in asked else []
        if asked & {"latency", "throughput", "energy", "utilization"}:
            stages += [self._matrix_rates] if "utilization" in asked else []
            stages += [self._timing(batch) for batch in self.settings.batch_sizes]
        stages += [self._memory] if "memory" in asked else []
        stages += [self._extra] if "extra" in asked and self.metrics else []
        return stages

    def _check(self) -> None:
        for candidate in self.candidates.values():
            candidate.check(1)

    def _describe(self) -> None:
        for each in self.collected.values():
            candidate = each.candidate
            each.provenance = provenance(candidate, self.split, self.weights_origin)
            each.blocks = block_map(candidate.model, candidate.layout)
            try:
                each.figures = model_figures(
                    candidate.model, adapter=candidate.adapter, example_shape=(1, *candidate.input_shape)
                )
            except MeasurementError as error:
                if candidate.layout is not None:
                    raise
                each.no_figures = str(error)  # an engine that runs the whole graph hides its products

    def _accuracy(self) -> None:
        for name, each in self.collected.items():
            origin = origin_of(each.candidate, self.weights_origin)
            if self.split is None:
                each.no_accuracy = "no labelled images were given"
            elif origin == "random":
                each.no_accuracy = "the weights are random, so accuracy would mean nothing"
            else:
                each.predictions = self._shared(name, each, self.split)
                if at_chance(each.predictions, len(self.split.class_names)):
                    each.notes.append(AT_CHANCE)

    def _shared(self, name: str, each: Collected, split: Split) -> Predictions:
        rows = self.group.rows(len(split), self.settings.accuracy_batch)

        def own() -> tuple[list[int], Predictions | None]:
            # With more processes than batches some have nothing to do.
            return rows, self._predict(each.candidate, split, rows, each.notes) if rows else None

        parts = [(rows, part) for rows, part in self.group.gather(f"the accuracy of {name}", own) if part is not None]
        return joined([part for _, part in parts], [row for rows, _ in parts for row in rows])

    def _predict(self, candidate: Candidate, split: Split, rows: list[int], notes: list[str]) -> Predictions:
        part = split if len(rows) == len(split) else split.subset(rows)
        sized = part.resized(*candidate.input_shape[1:])
        batch = self.settings.accuracy_batch
        while True:
            try:
                return predict(
                    candidate.model, candidate.adapter, sized, batch_size=batch, fingerprint=split.fingerprint
                )
            except Exception as error:  # each backend has an error of its own for running out of memory
                if batch == 1 or not is_out_of_memory(error):
                    raise
            release_memory()
            batch //= 2
            notes.append(f"accuracy was measured at batch {batch}: memory ran out at {2 * batch}")

    def _matrix_rates(self) -> None:
        for dtype in dict.fromkeys(candidate.dtype for candidate in self.candidates.values()):
            self.rates[dtype] = matrix_rate(self.device, dtype, seconds=self.settings.matrix_rate_s)

    def _timing(self, batch: Batch) -> Callable[[], None]:
        def stage() -> None:
            timed: dict[str, Timed] = {}
            size, note = self._affordable(batch)
            there = [
                each for one in self.collected.values() for each in one.timings.values() if each.batch_size == size
            ]
            if note and there:
                for each in there:
                    each.notes += note
                return
            try:
                time_models(
                    self.candidates, size, self.settings, baseline=self.baseline, gpu=self.gpu.value, into=timed
                )
            finally:
                for name, found in timed.items():
                    found.notes += note
                    self.collected[name].timings[batch] = found

        return stage

    def _affordable(self, batch: Batch) -> tuple[Batch, list[str]]:
        """Return the batch, halved as often as it takes for a pass not to last too long, and a note when it was."""
        longest = self.settings.longest_pass_s
        known = [timed for each in self.collected.values() for timed in each.timings.values()]
        if longest is None or batch == "best" or not known:
            return batch, []
        image_ms = max(timed.warm.typical_ms / timed.batch_size for timed in known)
        size = batch
        while size > 1 and size * image_ms > 1e3 * longest:
            size //= 2
        if size == batch:
            return batch, []
        slow = f"where a pass of the slowest model takes about {batch * image_ms / 1e3:.1f} s"
        return size, [f"measured at batch {size} instead of {batch}, {slow}"]

    def _memory(self) -> None:
        for each in self.collected.values():
            sizes = [timed.batch_size for timed in each.timings.values()]
            call = each.candidate.call(max(sizes, default=1), self.settings.seed)
            each.memory = measure_memory(each.candidate.model, call, self.device, self.gpu)

    def _extra(self) -> None:
        for each in self.collected.values():
            each.extra = extra_figures(self.metrics, each.candidate, self.split)


def _part(split: Split | None, count: int | None) -> Split | None:
    """Take ``count`` images spread evenly, so that a split sorted by class still gives every class."""
    if split is None or count is None or len(split) <= count:
        return split
    return split.subset([index * len(split) // count for index in range(count)])
