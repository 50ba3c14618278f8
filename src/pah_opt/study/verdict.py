"""The choice in words: the base with its reason, the front, the pick, the runner-up, and the place among others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pah_opt.study.choice import as_good_as_the_best, tried
from pah_opt.study.messages import Observation, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pah_opt.study.choice import Choice
    from pah_opt.study.messages import Kind, Wording
    from pah_opt.study.results import Line, StudyResult

UNITS: dict[str, Kind] = {
    "top1": "share", "top1_drop_pp": "points", "file_bytes": "mb", "size_x": "x", "speedup_x": "x",
    "throughput_x": "x", "energy_x": "x", "latency_ms": "ms", "sparsity_pct": "pct", "made_s": "seconds",
}  # fmt: skip
"""How limits of a figure are written; any other as a bare number."""
NEARLY = 0.05
"""Points, or halvings, below which two rows count as equal."""


def base_reason(result: StudyResult) -> Iterator[Observation]:
    """Say why the chosen adaptation was chosen."""
    found = {each.name: each for each in tried(result.adaptations)}
    own = found.get(result.base or "")
    if own is None:
        return
    best = max(each.top1 for each in found.values())
    tolerance = Value("points", result.study.base_tolerance_pp)
    near = as_good_as_the_best(list(found.values()), result.study.base_tolerance_pp)
    common: dict[str, Value | str | Observation] = {
        "name": own.name,
        "top1": Value("share", own.top1),
        "seconds": Value("seconds", own.seconds),
    }
    if len(found) == 1:
        yield Observation("base_only", {"name": own.name})
    elif len(near) == 1:
        yield Observation("base_better", {**common, "tolerance": tolerance})
    else:
        yield Observation("base_quicker", {**common, "tolerance": tolerance, "best": Value("share", best)})
    if all(each.validation_top1 is not None for each in result.adaptations if each.error is None):
        yield Observation("base_by_validation", {})


def verdict(result: StudyResult, choice: Choice, wording: Wording) -> Iterator[Observation]:
    """Yield the sentences of the final choice."""
    axes = ", ".join(wording.say(f"axis_name_{name}") for name in choice.axes)
    if choice.front:
        yield Observation("front", {"axes": axes, "rows": ", ".join(line.name for line in choice.front)})
    weights = result.study.priorities.weights
    yield Observation(
        "how_scored", {name: Value("points", getattr(weights, name)) for name in type(weights).model_fields}
    )  # fmt: skip
    limits = "; ".join(_limits(result, wording)) or wording.say("no_limits")
    candidates = Value("count", len(choice.scores) + choice.refused)
    yield Observation(
        "limits_kept", {"limits": limits, "refused": Value("count", choice.refused), "all": candidates}
    )  # fmt: skip
    if choice.naive:
        yield Observation("naive_out", {"n": Value("count", choice.naive)})
    yield from _pick(choice, wording)
    for name in choice.unmeasured:
        axis = wording.say(f"axis_name_{name}")
        yield Observation("unmeasured", {"axis": axis[:1].upper() + axis[1:]})


def _limits(result: StudyResult, wording: Wording) -> Iterator[str]:
    for name, gate in result.study.priorities.limits.items():
        for key, limit in (("limit_max", gate.max), ("limit_min", gate.min)):
            if limit is not None:
                yield wording.say(key, name=name, value=Value(UNITS.get(name, "number"), limit))


def _pick(choice: Choice, wording: Wording) -> Iterator[Observation]:
    pick = choice.pick
    if pick is None:
        yield Observation("pick_none", {})
        return
    figures = pick.figures
    if pick.row is None:
        yield Observation("pick_dense", {})
    else:
        yield Observation("pick", {
            "row": pick.name, "top1": Value("share", figures.top1), "mb": Value("mb", figures.file_bytes),
            "change": Value("change", -(figures.top1_drop_pp or 0.0)), "smaller": Value("x", figures.size_x),
            "speed": Value("x", figures.speedup_x), "score": Value("points", choice.scores[pick.name]),
        })  # fmt: skip
    if choice.runner_up is not None:
        yield _runner_up(choice, choice.runner_up, pick, wording)


def _runner_up(choice: Choice, second: Line, pick: Line, wording: Wording) -> Observation:
    score = Value("points", choice.scores[second.name])
    return Observation("runner_up", {"row": second.name, "score": score, "reason": _reason(second, pick, wording)})


def _reason(second: Line, pick: Line, wording: Wording) -> str:
    """Say in what the runner-up is furthest behind the pick; ratios of two count like a point."""
    own, other = second.figures, pick.figures
    behind = [
        ((own.top1_drop_pp or 0.0) - (other.top1_drop_pp or 0.0), "accuracy",
         Value("change", -(own.top1_drop_pp or 0.0)), Value("change", -(other.top1_drop_pp or 0.0))),
        (_halvings(own.file_bytes, other.file_bytes), "size",
         Value("mb", own.file_bytes), Value("mb", other.file_bytes)),
        (_halvings(other.speedup_x or 1.0, own.speedup_x or 1.0), "latency",
         Value("x", own.speedup_x or 1.0), Value("x", other.speedup_x or 1.0)),
    ]  # fmt: skip
    far, axis, mine, theirs = max(behind, key=lambda each: each[0])
    if far < NEARLY:
        return wording.say("reason_equal")
    return wording.say(f"reason_{axis}", own=mine, other=theirs)


def _halvings(more: float | None, less: float | None) -> float:
    return math.log2(more / less) if more and less else 0.0


def place_among(result: StudyResult, choice: Choice, wording: Wording) -> list[str]:
    """Say where the pick stands among published figures; nothing without a pick or without any."""
    pick, published = choice.pick, result.study.references
    if pick is None or pick.figures.top1 is None or not published:
        return []
    top1, count = Value("share", pick.figures.top1), Value("count", len(published))
    below = [each.model for each in published if each.top1_pct < 100.0 * pick.figures.top1]
    if below:
        first = wording.say(
            "place_above", top1=top1, above=Value("count", len(below)), all=count, names=", ".join(below)
        )
    else:
        first = wording.say("place_below_all", top1=top1, all=count)
    test, train = (Value("count", n) for n in (result.conditions.test_images, result.conditions.train_images))
    return [first, wording.say("place_caution", test=test, train=train)]
