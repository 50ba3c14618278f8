"""How to search."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real
from typing import TYPE_CHECKING, Literal

from pah_opt.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pah_opt.search.study import Sampler


MOST_SEED = 2**32
"""Optuna's samplers take seeds below it."""
LEAST = {"trials": 1, "validation_images": 1, "calibration_images": 1}
"""Whole numbers, and the smallest that means something."""


@dataclass(frozen=True)
class Settings:
    """How to search.

    Args:
        trials: how many recipes are tried at most, those of interrupted runs included.
        minutes: how long at most, interrupted runs included; None for any.
        trial_limit_s: seconds that one trial may take; it then runs in a process of its own.
        sampler: ``tpe``, ``nsga2``, or ``random`` (to compare with).
        starts: begin with starting points: single steps, the cheapest recipes and the way back from them to what keeps
            the limits, allocations by a knapsack.
        neighbours: try neighbours of the front in turn with the sampler's proposals.
        racing: stop hopeless trials on part of the images.
        screening: predict before a trial runs, and leave out what is over a limit.
        validation_images: images that decide, taken from the training images, at most 30 % of them.
        calibration_images: images that calibrating steps observe.
        engine: ``local``, or ``ray`` for a cluster.
        address: of the Ray cluster: ``HOST:PORT``, ``auto`` or ``local``.
        seed: of everything random.
    """

    trials: int = 100
    minutes: float | None = None
    trial_limit_s: float | None = None
    sampler: Sampler = "tpe"
    starts: bool = True
    neighbours: bool = True
    racing: bool = True
    screening: bool = True
    validation_images: int = 1000
    calibration_images: int = 128
    engine: Literal["local", "ray"] = "local"
    address: str = "auto"
    seed: int = 0

    @property
    def limit_s(self) -> float:
        """Seconds that the search may take, infinite for any."""
        return float("inf") if self.minutes is None else 60.0 * self.minutes

    @property
    def elsewhere(self) -> bool:
        """Whether trials run in other processes than the search."""
        return self.engine == "ray" or self.trial_limit_s is not None

    def check(self) -> None:
        """Find values that mean nothing, or are of another type.

        Raises:
            RecipeError: names them.
        """
        wrong = [*self._wrong_numbers(), *self._wrong_choices()]
        if wrong:
            raise RecipeError("; ".join(wrong))

    def _wrong_numbers(self) -> Iterator[str]:
        for name, least in LEAST.items():
            value = getattr(self, name)
            if not (_is_whole(value) and value >= least):
                yield f"{name} is {value!r}; it must be a whole number, at least {least}"
        if not (_is_whole(self.seed) and 0 <= self.seed < MOST_SEED):
            yield f"seed is {self.seed!r}; allowed: 0 to {MOST_SEED - 1}, whole numbers"
        for name in ("minutes", "trial_limit_s"):
            value = getattr(self, name)
            if value is not None and not (_is_finite(value) and value > 0):
                yield f"{name} is {value!r}; it must be a finite number above 0, or None for any"

    def _wrong_choices(self) -> Iterator[str]:
        for name in ("starts", "neighbours", "racing", "screening"):
            if not isinstance(value := getattr(self, name), bool):
                yield f"{name} is {value!r}; allowed: True, False"
        for name, allowed in (("sampler", ("tpe", "nsga2", "random")), ("engine", ("local", "ray"))):
            if (value := getattr(self, name)) not in allowed:
                yield f"{name} is {value!r}; allowed: {', '.join(allowed)}"
        if not isinstance(address := getattr(self, "address"), str):  # noqa: B009  # its type is what is in doubt
            yield f"address is {address!r}; it must be a text: HOST:PORT, auto or local"


def _is_whole(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral)


def _is_finite(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and isfinite(value)
