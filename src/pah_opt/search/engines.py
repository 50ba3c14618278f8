"""Where trials run: here one after the other, or on a Ray cluster."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pah_opt.search.records import Record

if TYPE_CHECKING:
    from pah_opt.recipe import Recipe
    from pah_opt.search.racing import Rivals

Judging = Callable[["Recipe", "Rivals", Record], Record]
Timings = Mapping[Hashable, float]
"""What a latency table knows, in ms by part; see :class:`pah_opt.search.latency_table.LatencyTable`."""


@dataclass(frozen=True)
class Answer:
    """What a judge in another process sends back.

    Args:
        record: the judged trial.
        timings: what the judge's latency table learned meanwhile.
        place: the machine that judged, where there are several.
    """

    record: Record
    timings: Timings = field(default_factory=dict)
    place: str | None = None


def timings_of(judge: object) -> Timings:
    """Return what a judge's latency table knows; nothing for a judge without one."""
    table = getattr(judge, "table", None)
    return {} if table is None else dict(table.times_ms)


def tell_timings(judge: object, timings: Timings) -> None:
    """Add timings to a judge's latency table, if it has one."""
    table = getattr(judge, "table", None)
    if table is not None:
        table.times_ms.update(timings)


def answer(judge: Judging, recipe: Recipe, rivals: Rivals, record: Record, known: Timings) -> Answer:
    """Judge in a process that is not the search's own, with the timings that the search knows.

    Returns:
        The record, and the timings that are new to the search.
    """
    tell_timings(judge, known)
    judged = judge(recipe, rivals, record)
    return Answer(judged, {part: ms for part, ms in timings_of(judge).items() if part not in known})


@dataclass(frozen=True)
class Job:
    """A trial to run.

    Args:
        trial: Optuna's.
        recipe: what to try.
        rivals: what earlier trials showed.
        record: what is known of the trial so far.
    """

    trial: Any
    recipe: Recipe
    rivals: Rivals
    record: Record


class Engine(Protocol):
    """Runs trials."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many trials run at the same time; may change as machines come and go, down to none."""

    @abstractmethod
    def start(self, job: Job) -> None:
        """Start a trial."""

    @abstractmethod
    def wait(self) -> list[tuple[Job, Record]]:
        """Wait until a trial has ended, or for a second or so; return those that have ended, maybe none."""

    def close(self) -> None:
        """Give back what it holds; trials that still run are ended."""


class Local(Engine):
    """One trial after the other.

    Args:
        judge: judges a recipe, in this process or a child of it.
        end: called at the end.
    """

    slots = 1

    def __init__(self, judge: Judging, end: Callable[[], None] = lambda: None) -> None:
        self._judge, self._end = judge, end
        self._jobs: list[Job] = []

    def start(self, job: Job) -> None:
        """Put it in line."""
        self._jobs.append(job)

    def wait(self) -> list[tuple[Job, Record]]:
        """Run the next one."""
        job = self._jobs.pop(0)
        return [(job, self._judge(job.recipe, job.rivals, job.record))]

    def close(self) -> None:
        """End the child process."""
        self._end()
