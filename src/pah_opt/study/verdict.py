"""The choice in words: the base with its reason, the front, the pick, the runner-up, and the place among others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pah_opt.study.choice import GAINS, as_good_as_the_best, gain, tried
from pah_opt.study.messages import Observation, Value
from pah_opt.study.schema import DENSE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pah_opt.study.choice import Choice
    from pah_opt.study.messages import Kind, Wording
    from pah_opt.study.results import Line, StudyResult
    from pah_opt.study.schema import Weights

UNITS: dict[str, Kind] = {
    "top1": "share", "top1_drop_pp": "points", "file_bytes": "mb", "size_x": "x", "speedup_x": "x",
    "throughput_x": "x", "energy_x": "x", "latency_ms": "ms", "sparsity_pct": "pct", "made_s": "seconds",
    "speedup_low_x": "x", "speedup_high_x": "x", "dense_latency_ms": "ms", "file_without_masks_bytes": "mb",
}  # fmt: skip
"""How limits of a figure are written; any other as a bare number."""
NEARLY = 0.05
"""Points of worth below which two rows count as equal."""


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
    axes = ", ".join(wording.say(f"axis_name_{name}") for name in ("accuracy", *choice.axes))
    if choice.front:
        yield Observation("front", {"axes": axes, "rows": ", ".join(line.name for line in choice.front)})
    weights = result.study.priorities.weights
    yield Observation(
        "how_scored", {name: Value("points", getattr(weights, name)) for name in type(weights).model_fields}
    )  # fmt: skip
    limits = "; ".join(_limits(result, wording)) or wording.say("no_limits")
    if choice.candidates:
        yield Observation(
            "limits_kept",
            {"limits": limits, "refused": Value("count", choice.refused), "all": Value("count", choice.candidates)},
        )
    if choice.naive:
        yield Observation("naive_out", {"n": Value("count", choice.naive)})
    yield from _pick(result, choice, wording)
    for name in choice.unmeasured:
        axis = wording.say(f"axis_name_{name}")
        yield Observation("unmeasured", {"axis": axis[:1].upper() + axis[1:]})


def _limits(result: StudyResult, wording: Wording) -> Iterator[str]:
    for name, gate in result.study.priorities.limits.items():
        figure, unit = wording.say(f"figure_{name}"), UNITS.get(name, "number")
        for key, limit in (("limit_max", gate.max), ("limit_min", gate.min)):
            if limit is not None:
                yield wording.say(key, name=figure, value=Value(unit, limit))


def _pick(result: StudyResult, choice: Choice, wording: Wording) -> Iterator[Observation]:
    pick = choice.pick
    if pick is None:
        dense = result.line(DENSE)
        none = "pick_none" if choice.candidates else "pick_nothing"
        yield Observation("pick_at_chance" if dense is not None and dense.collapsed else none, {})
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
        yield Observation("flattered", {
            "all": Value("count", len(choice.scores)), "images": Value("count", result.conditions.test_images),
        })  # fmt: skip
    if choice.runner_up is not None:
        second, weights = choice.runner_up, result.study.priorities.weights
        score = Value("points", choice.scores[second.name])
        reason = _reason(second, pick, weights, wording)
        yield Observation("runner_up", {"row": second.name, "score": score, "reason": reason})


def _reason(second: Line, pick: Line, weights: Weights, wording: Wording) -> str:
    """Say what costs the runner-up the most against the pick, in points of worth under the priorities."""
    behind = {name: getattr(weights, name) * _halvings(gain(second, name), gain(pick, name)) for name in GAINS}
    lost = (second.figures.top1_drop_pp or 0.0) - (pick.figures.top1_drop_pp or 0.0)
    behind["accuracy"] = weights.accuracy * lost
    furthest = max(behind, key=lambda name: behind[name])
    if behind[furthest] < NEARLY:
        return wording.say("reason_equal")
    return wording.say(f"reason_{furthest}", own=_shown(second, furthest), other=_shown(pick, furthest))


def _shown(line: Line, name: str) -> Value:
    if name == "accuracy":
        return Value("change", -(line.figures.top1_drop_pp or 0.0))
    return Value("mb", line.figures.file_bytes) if name == "size" else Value("x", gain(line, name))


def _halvings(own: float | None, other: float | None) -> float:
    return math.log2(other / own) if own and other else 0.0


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
