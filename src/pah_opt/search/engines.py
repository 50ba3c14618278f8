"""Where trials run: here one after the other, or on a Ray cluster."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pah_opt.search.records import Record

if TYPE_CHECKING:
    from pah_opt.recipe import Recipe
    from pah_opt.search.racing import Rivals

Judging = Callable[["Recipe", "Rivals", Record], Record]


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
        """How many trials run at the same time; may change as machines come and go."""

    @abstractmethod
    def start(self, job: Job) -> None:
        """Start a trial."""

    @abstractmethod
    def wait(self) -> list[tuple[Job, Record]]:
        """Wait until at least one trial has ended; return those that have."""

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
