"""How to search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pah_opt.errors import RecipeError

if TYPE_CHECKING:
    from pah_opt.search.study import Sampler


MOST_SEED = 2**32
"""Optuna's samplers take seeds below it."""


@dataclass(frozen=True)
class Settings:
    """How to search.

    Args:
        trials: how many recipes are tried at most, those of interrupted runs included.
        minutes: how long at most, interrupted runs included; None for any.
        trial_limit_s: seconds that one trial may take; it then runs in a process of its own.
        sampler: ``tpe``, ``nsga2``, or ``random`` (to compare with).
        starts: begin with starting points: single steps, strong and weak recipes, allocations by a knapsack.
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
    def elsewhere(self) -> bool:
        """Whether trials run in other processes than the search."""
        return self.engine == "ray" or self.trial_limit_s is not None

    def check(self) -> None:
        """Find values that mean nothing.

        Raises:
            RecipeError: names them.
        """
        least = {"trials": 1, "minutes": 0, "trial_limit_s": 0, "validation_images": 1, "calibration_images": 1}
        wrong = [
            f"{name} is {value}; it must be {'above 0' if low == 0 else f'at least {low}'}"
            for name, low in least.items()
            if (value := getattr(self, name)) is not None and (value < low or value == 0)
        ]
        if not 0 <= self.seed < MOST_SEED:
            wrong.append(f"seed is {self.seed}; allowed: 0 to {MOST_SEED - 1}")
        for name, allowed in (("sampler", ("tpe", "nsga2", "random")), ("engine", ("local", "ray"))):
            if (value := getattr(self, name)) not in allowed:
                wrong.append(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
        if wrong:
            raise RecipeError("; ".join(wrong))
