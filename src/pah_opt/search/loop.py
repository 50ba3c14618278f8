"""The loop: propose, run, record, until trials or time are used up, nothing new is left, or ctrl-C."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pah_opt.progress import Progress
from pah_opt.report.numbers import figures as written
from pah_opt.search.engines import Engine, Job
from pah_opt.search.proposing import Proposer, best_of
from pah_opt.search.racing import Rivals
from pah_opt.search.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pah_opt.search.bound import BoundSpace
    from pah_opt.search.budget import Budget
    from pah_opt.search.judge import Figures
    from pah_opt.search.study import Study

REPEATS = 25
"""Known recipes proposed in a row after which the space counts as exhausted."""


@dataclass
class Loop:
    """Runs a search.

    Args:
        study: keeps the trials.
        bound: the space.
        budget: the limits.
        proposer: says what is next.
        engine: runs trials.
        dense: figures of the dense model.
        trials: how many are run in all, those of earlier runs included.
        limit_s: seconds of search in all, those of earlier runs included.
        spent_s: seconds that earlier runs took.
        progress: shows progress.
        clock: tells the time in seconds.
    """

    study: Study
    bound: BoundSpace
    budget: Budget
    proposer: Proposer
    engine: Engine
    dense: Figures
    trials: int
    limit_s: float = float("inf")
    spent_s: float = 0.0
    progress: Progress = field(default_factory=Progress)
    clock: Callable[[], float] = time.perf_counter
    records: list[Record] = field(default_factory=list)
    interrupted: bool = False
    exhausted: bool = False
    _running: int = 0
    _repeats: int = 0

    def run(self) -> None:
        """Search; what ctrl-C interrupts is forgotten, everything that had ended is kept."""
        self._started = self.clock()
        for record in self.records:
            if record.state != "repeated":
                self.proposer.is_new(dict(record.values))
        turns = self.progress.track(self._turns(), f"searching {self.bound.space.name}", total=self.trials)
        try:
            for _ in turns:
                pass
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            self.engine.close()

    @property
    def elapsed_s(self) -> float:
        """Seconds of search so far, earlier runs included."""
        return self.spent_s + self.clock() - self._started

    def _turns(self) -> Iterator[Record]:
        yield from self.records
        while True:
            while self._running < self.engine.slots and self._may_start():
                yield from self._start()
            if not self._running:
                return
            for job, record in self.engine.wait():
                self._running -= 1
                yield self._ended(job.trial, record)

    def _may_start(self) -> bool:
        self.exhausted = self._repeats >= REPEATS or len(self.proposer.tried) >= self.bound.size
        room = len(self.records) + self._running < self.trials
        return room and self.elapsed_s < self.limit_s and not self.exhausted

    def _start(self) -> Iterator[Record]:
        values, origin = self.proposer.next(self.records, repeats=self._repeats)
        trial, chosen = self.study.ask(values)
        recipe = self.bound.recipe(chosen, f"{self.bound.space.name}-{trial.number}")
        data = None if recipe is None else recipe.to_data()
        record = Record(trial.number, "done", data, chosen, origin=origin)
        if not self.proposer.is_new(chosen):
            self._repeats += 1
            self._repeat(trial, record)
            return
        self._repeats = 0
        if recipe is None:
            yield self._ended(trial, replace(record, figures=dict(self.dense), reason="every step was left out"))
            return
        self._running += 1
        try:
            self.engine.start(Job(trial, recipe, Rivals.of(self.records, self.budget.figure), record))
        except BaseException:  # an interrupt too: a trial that never began must not stay open
            self.study.drop(trial)
            raise

    def _repeat(self, trial: object, record: Record) -> None:
        """Tell the sampler what is known of a recipe already; it costs nothing and is no trial."""
        same = self._same(record)
        if same is None:
            self.study.drop(trial)  # its twin is still running
        else:
            known = replace(same, number=record.number, state="repeated", recipe=record.recipe, origin=record.origin,
                            seconds=0.0, at_s=self.elapsed_s, reason=f"the same as trial {same.number}")  # fmt: skip
            self.study.tell(trial, known, self.dense)

    def _same(self, record: Record) -> Record | None:
        steps = (record.recipe or {}).get("steps")
        return next((one for one in self.records if (one.recipe or {}).get("steps") == steps), None)

    def _ended(self, trial: object, record: Record) -> Record:
        record = replace(record, at_s=self.elapsed_s)
        before = [each.number for each in best_of(self.records, self.budget)]
        self.study.tell(trial, record, self.dense)
        self.records.append(record)
        if record.number in (best := [each.number for each in best_of(self.records, self.budget)]) and best != before:
            self.progress.message(self._said(record, len(best)))
        return record

    def _said(self, record: Record, front: int) -> str:
        shown = ", ".join(describe(record.figures))
        left = "" if self.limit_s == float("inf") else f"; {max(0.0, self.limit_s - self.elapsed_s) / 60:.1f} min left"
        kept = "" if record.keeps(self.budget) else " (beyond the limits)"
        return f"trial {record.number}: {shown}{kept}; front: {front} recipe{'s' if front > 1 else ''}{left}"


def describe(figures: Mapping[str, float | None]) -> list[str]:
    """Return the main figures in words."""
    shown = {
        "top1_drop_pp": ("{} pp lost", 1.0), "latency_p50_ms": ("{} ms", 1.0), "speedup_p50_x": ("{}x", 1.0),
        "artifact_bytes": ("{} MB", 1e-6), "j_per_image": ("{} J an image", 1.0), "macs": ("{} M MACs", 1e-6),
    }  # fmt: skip
    return [
        text.format(written(value * scale) if value >= 0 else f"-{written(-value * scale)}")
        for name, (text, scale) in shown.items()
        if (value := figures.get(name)) is not None
    ]
