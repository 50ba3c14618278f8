"""The loop: propose, run, record, until trials or time are used up, nothing new is left, or ctrl-C."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from pah_opt.errors import SearchError
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

End = Literal["time", "ctrl-C", "error"]
"""What ended a search before its trials were used up."""
REPEATS = 25
"""Known recipes proposed in a row after which the space counts as exhausted."""
SAY_S = 60.0
"""Seconds without a new recipe on the front after which progress is said all the same."""
NO_NODE = "no node can run a trial; waiting for one"


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
        records: every trial so far.
        interrupted: whether ctrl-C ended it.
        failure: what ended it, where that was an error: raised once what was found is kept.
        exhausted: whether every recipe was tried.
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
    failure: Exception | None = None
    exhausted: bool = False
    _running: dict[int, Any] = field(default_factory=dict)
    _repeats: int = 0
    _said_s: float = 0.0

    def run(self) -> None:
        """Search; what ctrl-C or an error interrupts is forgotten, everything that had ended is kept."""
        self._started = self.clock()
        self._before = len(self.records)
        self._said_s = self.elapsed_s
        for record in self.records:
            if record.state != "repeated":
                self.proposer.is_new(dict(record.values))
        turns = self.progress.track(self._turns(), f"searching {self.bound.space.name}", total=self.trials)
        try:
            for _ in turns:
                pass
        except KeyboardInterrupt:
            self.interrupted = True
        except Exception as error:  # noqa: BLE001  # of the storage, the engine, or a plugin's plan: none undoes a trial
            self.failure = error
        finally:
            self.engine.close()
            for trial in self._running.values():
                self._drop(trial)

    @property
    def end(self) -> End:
        """What ended it, where its trials were not used up."""
        if self.failure is not None:
            return "error"
        return "ctrl-C" if self.interrupted else "time"

    def _drop(self, trial: object) -> None:
        # Where the storage cannot be written the search ends for that; a run that goes on drops what is unfinished.
        with suppress(SearchError):
            self.study.drop(trial)

    @property
    def elapsed_s(self) -> float:
        """Seconds of search so far, earlier runs included."""
        return self.spent_s + self.clock() - self._started

    def _turns(self) -> Iterator[Record]:
        yield from self.records
        stranded = False
        while True:
            slots = self.engine.slots
            while len(self._running) < slots and self._may_start():
                yield from self._start()
            if not slots and not stranded:
                self.progress.message(NO_NODE)
            stranded = not slots
            if self._nothing_to_wait_for(slots):
                return
            for job, record in self.engine.wait():
                del self._running[job.record.number]
                yield self._ended(job.trial, record)

    def _nothing_to_wait_for(self, slots: int) -> bool:
        if slots:
            return not self._running
        # Every machine is gone. New ones may come, as long as there is time.
        return self.elapsed_s >= self.limit_s or not (self._running or self._may_start())

    def _may_start(self) -> bool:
        self.exhausted = self._repeats >= REPEATS or len(self.proposer.tried) >= self.bound.size
        room = len(self.records) + len(self._running) < self.trials
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
        try:
            self.engine.start(Job(trial, recipe, Rivals.of(self.records, self.budget), record))
        except BaseException:  # an interrupt too: a trial that never began must not stay open
            self._drop(trial)
            raise
        self._running[record.number] = trial

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
        self.records.append(record)  # first: it was judged, whatever becomes of the storage
        self.study.tell(trial, record, self.dense)
        best = [each.number for each in best_of(self.records, self.budget)]
        new = record.number in best and best != before
        if new or self.elapsed_s - self._said_s >= SAY_S:
            self._said_s = self.elapsed_s
            self.progress.message(self._said(record, len(best), new=new))
        return record

    def _said(self, record: Record, front: int, *, new: bool) -> str:
        shown = ", ".join(describe(record.figures)) if new else record.state
        kept = "" if not new or record.keeps(self.budget) else " (beyond the limits)"
        done = f"{len(self.records)} of {self.trials} trials"
        left = f"at most {self._left_s / 60:.1f} min left"
        return f"trial {record.number}: {shown}{kept}; front: {front} recipe{'s' if front > 1 else ''}; {done}, {left}"

    @property
    def _left_s(self) -> float:
        """Seconds until the time is up or, at the pace so far, the trials are."""
        pace = (self.clock() - self._started) / max(1, len(self.records) - self._before)
        return max(0.0, min(self.limit_s - self.elapsed_s, pace * (self.trials - len(self.records))))


def describe(figures: Mapping[str, float | None]) -> list[str]:
    """Return the main figures in words."""
    shown = {
        "top1_drop_pp": ("{} pp lost", 1.0), "latency_p50_ms": ("{} ms", 1.0), "speedup_p50_x": ("{}x", 1.0),
        "artifact_bytes": ("{} MB", 1e-6), "j_per_image": ("{} J an image", 1.0), "macs": ("{} M MACs", 1e-6),
        "params": ("{} M parameters", 1e-6),
    }  # fmt: skip
    return [
        text.format(written(value * scale) if value >= 0 else f"-{written(-value * scale)}")
        for name, (text, scale) in shown.items()
        if (value := figures.get(name)) is not None
    ]
