"""Fronts and hypervolume of two figures, both to be as low as possible."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Point(NamedTuple):
    """Two figures of one recipe; lower is better in both."""

    cost: float
    loss: float

    def beats(self, other: Point) -> bool:
        """Tell whether this is no worse in both and better in one."""
        return self.cost <= other.cost and self.loss <= other.loss and self != other


def front(points: Sequence[Point]) -> list[int]:
    """Return the indices of the points that none beats, by rising cost; of equal points the first.

    >>> front([Point(2, 1), Point(1, 2), Point(2, 2), Point(1, 2)])
    [1, 0]
    """
    best: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (*points[i], i)):
        if not best or points[index].loss < points[best[-1]].loss:
            best.append(index)
    return best


def hypervolume(points: Iterable[Point], reference: Point) -> float:
    """Return the area between the front of ``points`` and ``reference``, the worst that counts.

    >>> hypervolume([Point(1, 2), Point(2, 1), Point(9, 9)], Point(3, 3))
    3.0
    """
    inside = [p for p in points if p.cost < reference.cost and p.loss < reference.loss]
    area, loss = 0.0, reference.loss
    for index in front(inside):
        cost, lower = inside[index]
        area += (reference.cost - cost) * (loss - lower)
        loss = lower
    return area
