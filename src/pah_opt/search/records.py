"""What is known of one trial, as JSON data: kept in the storage, shown in the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pah_opt.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pah_opt.search.budget import Budget

State = Literal["done", "stopped", "over", "outdone", "refused", "failed", "timed-out", "out-of-memory", "repeated"]


class Rung(NamedTuple):
    """How right a trial was on the first ``images`` validation images.

    Args:
        images: how many.
        drop_pp: top-1 lost against the dense model on them, in percentage points.
    """

    images: int
    drop_pp: float


@dataclass(frozen=True)
class Record:
    """One trial.

    Args:
        number: in the order in which trials were started.
        state: ``done``; ``stopped`` on part of the images, because it was hopeless; ``over`` a limit by its plan or
            its size, so not judged; ``outdone`` by its plan: dearer than a trial that loses nothing; ``refused`` by the
            strategies or the plan; ``failed``, ``timed-out``, ``out-of-memory``; ``repeated``: an earlier trial had the
            same recipe, whose figures are these.
        recipe: what was tried, as JSON data; None when every step was left out (the dense model).
        values: what was chosen, by name of the parameter.
        figures: what was measured, named as in reports, on the validation images.
        predicted: what was predicted before it ran, named likewise.
        rungs: how right it was on growing parts of the images.
        reason: why it is not ``done``.
        origin: where it comes from: ``start``, ``sampler``, ``neighbour`` or ``random``.
        seconds: how long it took.
        at_s: seconds of search time after which it ended, those of interrupted runs included.
    """

    number: int
    state: State
    recipe: Mapping[str, Any] | None
    values: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float | None] = field(default_factory=dict)
    predicted: Mapping[str, float] = field(default_factory=dict)
    rungs: tuple[Rung, ...] = ()
    reason: str | None = None
    origin: str = "sampler"
    seconds: float = 0.0
    at_s: float = 0.0

    @property
    def name(self) -> str:
        """Name of its recipe, ``dense`` for the model as it was."""
        return "dense" if self.recipe is None else str(self.recipe.get("name", "recipe"))

    @property
    def judged(self) -> bool:
        """Whether all its figures are known."""
        return self.state == "done"

    def keeps(self, budget: Budget) -> bool:
        """Tell whether it was judged and keeps every limit."""
        return self.judged and not budget.excess(self.figures)

    def made(self) -> Recipe:
        """Return its recipe.

        Raises:
            ValueError: it is the dense model.
        """
        if self.recipe is None:
            raise ValueError(f"trial {self.number} is the dense model and has no recipe")
        return Recipe(**dict(self.recipe))

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {**asdict(self), "rungs": [list(rung) for rung in self.rungs]}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Record:
        """Read what :meth:`to_data` wrote."""
        return cls(**{**data, "rungs": tuple(Rung(*rung) for rung in data["rungs"])})
