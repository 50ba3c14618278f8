"""What to choose: the adaptation to go on with, the rows that nothing beats, and one pick under the priorities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from pah_opt.study.limits import at_least, at_most

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.recipe import Gate
    from pah_opt.study.results import AdaptationResult, Line, StudyResult
    from pah_opt.study.schema import Priorities, Study

GAINS = {"size": "size_x", "latency": "speedup_x", "energy": "energy_x"}
"""What a row gains: the dense model's cost over its own. Speeds are compared by ratios only, which are measured in
turns: absolute times of rows that were measured hours apart are not comparable. Ratios that noise explains
count as 1."""


class Tried(NamedTuple):
    """An adaptation over all seeds; ``top1`` is of validation images where there are any."""

    name: str
    top1: float
    seconds: float


def tried(adaptations: Sequence[AdaptationResult]) -> list[Tried]:
    """Return each adaptation that ran, its means over seeds."""
    found = []
    for name in dict.fromkeys(each.name for each in adaptations):
        ran = [each for each in adaptations if each.name == name and each.error is None]
        tops = [each.validation_top1 if each.validation_top1 is not None else each.top1 for each in ran]
        known = [top for top in tops if top is not None]
        if known:
            found.append(Tried(name, sum(known) / len(known), sum(e.seconds or 0.0 for e in ran) / len(ran)))
    return found


def chosen_base(study: Study, adaptations: Sequence[AdaptationResult]) -> str | None:
    """Return the adaptation to go on with: the quickest of those as accurate as the best, within the tolerance."""
    found = tried(adaptations)
    if not found:
        return None
    return min(as_good_as_the_best(found, study.base_tolerance_pp), key=lambda each: each.seconds).name


def as_good_as_the_best(found: Sequence[Tried], tolerance_pp: float) -> list[Tried]:
    """Return the adaptations whose accuracy is within so many points of the best."""
    best = max(each.top1 for each in found)
    return [each for each in found if at_most(100.0 * (best - each.top1), tolerance_pp)]


class Choice(NamedTuple):
    """What is chosen, and why.

    Args:
        front: rows that no other beats in everything that counts.
        pick: the best under the priorities; None where no row keeps the limits.
        runner_up: the second best.
        scores: of every row that keeps the limits, in points of accuracy.
        refused: how many rows break a limit.
        naive: how many rows show how not to do it, and are no candidates.
        axes: costs that could be compared.
        unmeasured: costs that have a weight and could not be measured.
    """

    front: tuple[Line, ...]
    pick: Line | None
    runner_up: Line | None
    scores: dict[str, float]
    refused: int
    naive: int
    axes: tuple[str, ...]
    unmeasured: tuple[str, ...]

    @property
    def candidates(self) -> int:
        """How many rows could be chosen, those that break a limit included."""
        return len(self.scores) + self.refused


def choose(result: StudyResult) -> Choice:
    """Choose among all rows of the chosen base that are not naive, the dense model among them."""
    priorities, lines = result.study.priorities, result.lines()
    fit = [line for line in lines if not line.is_naive and line.ran and not line.collapsed]
    fit = [line for line in fit if line.figures.top1 is not None]
    weighed = [name for name in GAINS if getattr(priorities.weights, name) > 0]
    axes = tuple(name for name in weighed if any(gain(line, name) is not None for line in fit if line.row is not None))
    kept = [line for line in fit if _keeps(line, priorities.limits)]
    scores = {line.name: score(line, priorities, axes) for line in kept}
    ranked = sorted(kept, key=lambda line: -scores[line.name])
    return Choice(
        front=tuple(line for line in fit if not any(_beats(other, line, axes) for other in fit)),
        pick=ranked[0] if ranked else None,
        runner_up=ranked[1] if len(ranked) > 1 else None,
        scores=scores,
        refused=len(fit) - len(kept),
        naive=sum(line.is_naive for line in lines),
        axes=axes,
        unmeasured=tuple(name for name in weighed if name not in axes),
    )


def score(line: Line, priorities: Priorities, axes: Sequence[str]) -> float:
    """Return what a row is worth against the dense model, in points of accuracy.

    Each cost counts by how often it is halved, times its weight; each point of top-1 lost counts against it.
    """
    worth = -priorities.weights.accuracy * _lost(line)
    for name in axes:
        ratio = gain(line, name)
        worth += getattr(priorities.weights, name) * (math.log2(ratio) if ratio else 0.0)
    return worth


def gain(line: Line, name: str) -> float | None:
    """Return how many times cheaper a row is than the dense model, by the name of a cost; None where it is unknown."""
    if line.row is None:
        return 1.0
    value: float | None = line.real_speedup if name == "latency" else getattr(line.figures, GAINS[name])
    return value


def _keeps(line: Line, limits: dict[str, Gate]) -> bool:
    return all(_within(_limited(line, name), gate) for name, gate in limits.items())


def _limited(line: Line, name: str) -> float | None:
    """Return a figure; the dense model's ratios to itself, which nobody measures, are 1."""
    value: float | None = getattr(line.figures, name)
    return 1.0 if value is None and line.row is None and name.endswith("_x") else value


def _within(value: float | None, gate: Gate) -> bool:
    if value is None:
        return True  # the dense model loses nothing against itself; a figure that cannot be had refuses nobody
    return (gate.max is None or at_most(value, gate.max)) and (gate.min is None or at_least(value, gate.min))


def _beats(other: Line, line: Line, axes: Sequence[str]) -> bool:
    """Tell whether ``other`` is at least as good in everything that counts, and better in something."""
    pairs = [(-_lost(other), -_lost(line))]
    pairs += [(a, b) for name in axes if (a := gain(other, name)) is not None and (b := gain(line, name)) is not None]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _lost(line: Line) -> float:
    """Return what a row loses against the dense model on the same seeds: its top-1 may be a mean over fewer of them."""
    return line.figures.top1_drop_pp or 0.0


def by_size(result: StudyResult) -> list[tuple[float, Line | None]]:
    """Return for each size in MB (10⁶ bytes) the most accurate row whose file fits; the faster of equals."""
    lines = [
        line for line in result.lines()
        if not line.is_naive and not line.collapsed and line.figures.top1 is not None and line.figures.file_bytes
    ]  # fmt: skip
    found = []
    for size in sorted(result.study.sizes_mb):
        fits = [line for line in lines if (line.figures.file_bytes or 0.0) <= size * 1e6]
        best = max(fits, key=lambda line: (-_lost(line), line.figures.speedup_x or 1.0), default=None)
        found.append((size, best))
    return found
