"""One choice for every layer under a shared budget: the multiple-choice knapsack, by dynamic programming."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESOLUTION = 4096
"""Steps into which a budget is cut; costs are rounded up to a step, so that the budget is never exceeded."""


def allocate(
    costs: Sequence[Sequence[float]], damages: Sequence[Sequence[float]], budget: float
) -> tuple[int, ...] | None:
    """Choose for every layer so that the damages' sum is least and the costs' sum keeps the budget.

    Exact when all costs are whole numbers and what is left of the budget after every layer's cheapest choice is at most
    :data:`RESOLUTION`; otherwise costs are rounded up by less than ``budget / RESOLUTION`` each.

    Args:
        costs: for each layer, the cost of each choice (such as bytes), not negative.
        damages: for each layer, the damage of each choice (such as a divergence).
        budget: most that the costs may sum up to.

    Returns:
        The index of each layer's choice; None when even the cheapest choices exceed the budget.

    References:
        Kellerer, Pferschy, Pisinger: Knapsack Problems, chapter 11 (Springer, 2004).
    """
    cheapest = [min(row) for row in costs]
    room = budget - math.fsum(cheapest)
    if room < 0:
        return None
    extra = [[cost - least for cost in row] for row, least in zip(costs, cheapest, strict=True)]
    sizes, slots = _in_slots(extra, room)
    best: NDArray[np.float64] = np.zeros(slots + 1)
    picks: list[NDArray[np.int64]] = []
    for row, harm in zip(sizes, damages, strict=True):
        options = np.stack([_shifted(best, size, h) for size, h in zip(row, harm, strict=True)])
        picks.append(options.argmin(axis=0))
        best = options.min(axis=0)
    return _traced(picks, sizes, int(best.argmin()))


def _in_slots(extra: list[list[float]], room: float) -> tuple[list[list[int]], int]:
    whole = all(float(value).is_integer() for row in extra for value in row)
    if whole and room <= RESOLUTION:
        return [[int(value) for value in row] for row in extra], int(room)
    step = room / RESOLUTION if room > 0 else 1.0
    return [[math.ceil(value / step - 1e-9) for value in row] for row in extra], RESOLUTION if room > 0 else 0


def _shifted(best: NDArray[np.float64], size: int, harm: float) -> NDArray[np.float64]:
    """Return the least damage at each spending when this choice is added to the layers before."""
    moved = np.full_like(best, np.inf)
    if size < len(best):
        moved[size:] = best[: len(best) - size] + harm
    return moved


def _traced(picks: list[NDArray[np.int64]], sizes: list[list[int]], slot: int) -> tuple[int, ...]:
    chosen: list[int] = []
    for pick, row in zip(reversed(picks), reversed(sizes), strict=True):
        choice = int(pick[slot])
        chosen.append(choice)
        slot -= row[choice]
    return tuple(reversed(chosen))
