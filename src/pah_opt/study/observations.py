"""What the figures say: rules, each a measured condition and the sentence that is written where it holds.

A rule yields messages by key with the figures that made its condition true; no condition, no sentence.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pah_opt.study.choice import tried
from pah_opt.study.limits import at_least, at_most
from pah_opt.study.messages import Observation, Value

if TYPE_CHECKING:
    from pah_opt.study.results import Line, StudyResult
    from pah_opt.study.schema import Topic

LIMIT_PP = 1.0
"""Points of top-1 that count as bearable where a study names no limit."""
INT8_LIMIT_PP = 0.5
FASTER, SLOWER = 1.1, 0.95
BLOWN_X, SAME_SIZE = 1.5, 0.05
"""A file so many times the dense one has blown up; one that differs from it by so small a share has its size."""
ZEROS_PCT = 5.0
"""More zeros than the dense model has by this much count as pruned."""
NOISE_P = 0.05
COLLAPSE = re.compile(r"step \d+ \(")
"""How the warning begins that a step brought the model to chance."""


Rule = Callable[["StudyResult"], Iterator[Observation]]


def observations(result: StudyResult) -> list[Observation]:
    """Return everything the figures of a study say; of a dense model at chance, that alone."""
    dense = _dense(result)
    if dense is not None and dense.collapsed:
        classes = Value("count", len(result.conditions.class_names))
        return [_say("dense_at_chance", top1=Value("share", dense.figures.top1), classes=classes)]
    return [found for rule in RULES for found in rule(result)]


def _say(key: str, **values: Value | str | Observation) -> Observation:
    return Observation(key, values)


def _lines(result: StudyResult, topic: Topic | None = None, *, naive: bool | None = False) -> list[Line]:
    """Return the lines that ran, of one topic, with or without the naive ones (None: both)."""
    names = {row.name for s in result.study.sections if topic in (None, s.topic) for row in s.rows}
    return [
        line for line in result.lines()
        if line.name in names and line.ran and naive in (None, line.is_naive)
    ]  # fmt: skip


def _dense(result: StudyResult) -> Line | None:
    line = next((line for line in result.lines() if line.row is None), None)
    return line if line is not None and line.ran else None


def _limit(result: StudyResult) -> float:
    gate = result.study.priorities.limits.get("top1_drop_pp")
    return LIMIT_PP if gate is None or gate.max is None else gate.max


def _drop(line: Line) -> float:
    return line.figures.top1_drop_pp or 0.0


def _bears(line: Line, limit: float) -> bool:
    """Tell whether a row loses no more than so many points."""
    return at_most(_drop(line), limit)


def _change(line: Line) -> Value:
    return Value("change", -_drop(line))


def _loses(line: Line) -> Observation:
    """Say what a row loses, or gains."""
    drop = _drop(line)
    return _say("gains" if drop < 0 else "loses", points=Value("points", abs(drop)))


def _times(result: StudyResult) -> Iterator[Observation]:
    """Say how long adaptations took, where that differs."""
    found = sorted(tried(result.adaptations), key=lambda each: each.seconds)
    if len(found) < 2 or found[0].seconds <= 0 or found[-1].seconds < FASTER * found[0].seconds:
        return
    quick, slow = found[0], found[-1]
    yield _say(
        "adaptation_times", quick=quick.name, slow=slow.name, quick_s=Value("seconds", quick.seconds),
        slow_s=Value("seconds", slow.seconds), x=Value("x", slow.seconds / quick.seconds),
        quick_top1=Value("share", _test_top1(result, quick.name)),
        slow_top1=Value("share", _test_top1(result, slow.name)),
    )  # fmt: skip


def _test_top1(result: StudyResult, name: str) -> float | None:
    known = [each.top1 for each in result.adaptations if each.name == name and each.top1 is not None]
    return sum(known) / len(known) if known else None


def _masks(result: StudyResult) -> Iterator[Observation]:
    """Name the largest file that kept masks blow up."""
    dense = _dense(result)
    blown = [line for line in _lines(result, naive=True) if line.figures.file_without_masks_bytes]
    if dense is None or not dense.figures.file_bytes or not blown:
        return
    worst = max(blown, key=lambda line: line.figures.file_bytes or 0.0)
    ratio = (worst.figures.file_bytes or 0.0) / dense.figures.file_bytes
    removed = (worst.figures.file_without_masks_bytes or 0.0) / dense.figures.file_bytes
    if ratio > BLOWN_X:
        yield _say(
            "masks_double" if abs(removed - 1.0) <= SAME_SIZE else "masks_grow",
            row=worst.name, mb=Value("mb", worst.figures.file_bytes), x=Value("x", ratio),
            dense=Value("mb", dense.figures.file_bytes), removed=Value("mb", worst.figures.file_without_masks_bytes),
        )  # fmt: skip


def _zeros(line: Line) -> float:
    return line.figures.sparsity_pct or 0.0


def _sparse(result: StudyResult) -> list[Line]:
    """Return this library's rows that hold many zeros and are otherwise as the dense model is."""
    dense = _dense(result)
    if dense is None:
        return []
    found = [
        line for line in _lines(result)
        if _zeros(line) >= _zeros(dense) + ZEROS_PCT and line.figures.macs == dense.figures.macs
        and line.linear_dtypes == dense.linear_dtypes
    ]  # fmt: skip
    return sorted(found, key=_zeros)


def _stored(result: StudyResult) -> Iterator[Observation]:
    dense, sparse = _dense(result), _sparse(result)
    smaller = [line for line in sparse if (line.figures.size_x or 0.0) > 1.05]
    if dense is not None and smaller:
        best = max(smaller, key=lambda line: line.figures.size_x or 0.0)
        yield _say(
            "zeros_stored", row=best.name, zeros=Value("pct", best.figures.sparsity_pct),
            mb=Value("mb", best.figures.file_bytes), dense=Value("mb", dense.figures.file_bytes),
        )  # fmt: skip


def _zeros_and_speed(result: StudyResult) -> Iterator[Observation]:
    """Say what zeros do to speed, by the rows whose speed is known with its interval."""
    timed = [line for line in _sparse(result) if None not in (line.figures.speedup_x, line.figures.speedup_low_x)]
    if not timed:
        return
    middle = statistics.median(line.figures.speedup_x or 0.0 for line in timed)
    told = {"n": Value("count", len(timed)), "x": Value("x", middle)}
    real = [line.real_speedup or 0.0 for line in timed]
    if max(real) < FASTER and statistics.median(real) <= 1.0:
        yield Observation("zeros_no_faster", told)
    elif middle >= FASTER and statistics.median(line.figures.speedup_low_x or 0.0 for line in timed) > 1.0:
        yield Observation("zeros_faster", told)


def _bearable(result: StudyResult) -> Iterator[Observation]:
    """Say up to how many zeros every row costs little, and from where on every row costs more."""
    limit, sparse = _limit(result), _sparse(result)
    edge = min((_zeros(line) for line in sparse if not _bears(line, limit)), default=math.inf)
    good = [line for line in sparse if _zeros(line) < edge]
    if not good:
        return
    most = good[-1]
    zeros = Value("pct", most.figures.sparsity_pct)
    yield _say("sparsity_bearable", row=most.name, zeros=zeros, limit=Value("points", limit), change=_change(most))
    beyond = [line for line in sparse if _zeros(line) >= edge]
    if beyond and not any(_bears(line, limit) for line in beyond):
        first = beyond[0]
        yield _say(
            "sparsity_too_much", row=first.name, zeros=Value("pct", first.figures.sparsity_pct), change=_change(first)
        )


def _improved(result: StudyResult) -> Iterator[Observation]:
    """Compare each row with the one it is against, where the difference can be seen."""
    known = {line.name: line for line in _lines(result, naive=None)}
    for line in known.values():
        before = known.get(line.row.against or "") if line.row is not None else None
        if before is None or line.figures.top1 is None or before.figures.top1 is None:
            continue
        gain = 100.0 * (line.figures.top1 - before.figures.top1)
        shared: dict[str, Value | str | Observation] = {
            "row": line.name, "before": before.name, "top1": Value("share", line.figures.top1),
            "top1_before": Value("share", before.figures.top1),
        }  # fmt: skip
        if at_least(gain, 1.0):
            yield _say("improved", **shared, points=Value("points", gain), mb=Value("mb", line.figures.file_bytes))
        elif at_most(gain, -1.0):
            yield _say("no_better", **shared)


def _structured(result: StudyResult) -> Iterator[Observation]:
    dense, limit = _dense(result), _limit(result)
    cut = [line for line in _lines(result, "structured") if line.figures.macs and line.figures.top1 is not None]
    if dense is None or not dense.figures.macs or not cut:
        return
    good = [line for line in cut if _bears(line, limit) and (line.real_speedup or 0.0) >= FASTER]
    if good:
        best = max(good, key=lambda line: line.figures.speedup_x or 0.0)
        yield _say(
            "structured_pays", row=best.name, x=Value("x", best.figures.speedup_x),
            macs=Value("pct", 100.0 * (best.figures.macs or 0.0) / dense.figures.macs), effect=_loses(best),
        )  # fmt: skip
    elif not any(_bears(line, limit) for line in cut):
        closest = min(cut, key=_drop)
        yield _say(
            "structured_too_much",
            row=closest.name,
            limit=Value("points", limit),
            points=Value("points", _drop(closest)),
        )


def _is_int8(line: Line) -> bool:
    return "int8" in line.linear_dtypes


def _int8(result: StudyResult) -> Iterator[Observation]:
    rows = [line for line in _lines(result, "quantization") if _is_int8(line)]
    good = [line for line in rows if _bears(line, INT8_LIMIT_PP)]
    if good:
        smallest = min(good, key=lambda line: line.figures.file_bytes or 0.0)
        yield _say(
            "int8_holds", n=Value("count", len(good)), all=Value("count", len(rows)), row=smallest.name,
            limit=Value("points", INT8_LIMIT_PP), mb=Value("mb", smallest.figures.file_bytes),
            x=Value("x", smallest.figures.size_x),
        )  # fmt: skip
    for line in _lines(result, "quantization", naive=True):
        if not _bears(line, LIMIT_PP):
            yield _say("int8_breaks", row=line.name, points=Value("points", _drop(line)))


def _weights_only(result: StudyResult, line: Line) -> bool:
    """Tell whether a row's scheme leaves activations in float."""
    steps = () if line.row is None else result.study.steps(line.row)
    return any(str(step.parameters.get("scheme", "")).endswith("weight-only") for step in steps)


def _int8_speed(result: StudyResult) -> Iterator[Observation]:
    rows = [line for line in _lines(result) if _is_int8(line) and line.figures.speedup_x is not None]
    compiled = [line for line in rows if line.row and any(step.use == "compile" for step in line.row.steps)]
    slow = [line for line in rows if line not in compiled and (line.real_speedup or 1.0) < SLOWER]
    for key, weights_only in (("eager_int8_slow", False), ("eager_int8_weights_slow", True)):
        alike = [line for line in slow if _weights_only(result, line) == weights_only]
        if alike:
            worst = min(alike, key=lambda line: line.figures.speedup_x or 1.0)
            yield _say(key, row=worst.name, x=Value("x", worst.figures.speedup_x))
    fast = [line for line in compiled if (line.real_speedup or 0.0) >= FASTER]
    if fast:
        best = max(fast, key=lambda line: line.figures.speedup_x or 0.0)
        yield _say("compiled_int8_fast", row=best.name, x=Value("x", best.figures.speedup_x))


def _collapsed(result: StudyResult) -> Iterator[Observation]:
    """Name every row at chance and why; and those that lose accuracy though no weight was changed."""
    classes = Value("count", len(result.conditions.class_names))
    for line in _lines(result, naive=None):
        wrong_input = line.row is not None and line.row.naive in ("wrong-normalisation", "labels-out-of-step")
        cause = _say(f"cause_{_cause(line)}")
        if line.collapsed:
            yield _say(
                "collapsed_row", row=line.name, top1=Value("share", line.figures.top1), classes=classes, cause=cause
            )
        elif wrong_input and not _bears(line, LIMIT_PP):
            yield _say("damaged_row", row=line.name, points=Value("points", _drop(line)), cause=cause)


def _cause(line: Line) -> str:
    """Name what brought a row there: its naive tool, naive scales, a step that was warned of, or nothing known."""
    if line.row is not None and line.row.naive is not None:
        return line.row.naive
    if line.row is not None and any(step.parameters.get("naive") for step in line.row.steps):
        return "static"
    return "steps" if any(COLLAPSE.match(note) for note in line.notes) else "unknown"


def _noise(result: StudyResult) -> Iterator[Observation]:
    rows = [line for line in _lines(result) if _drop(line) and (line.figures.mcnemar_p or 0.0) >= NOISE_P]
    if rows:
        images = Value("count", result.conditions.test_images)
        yield _say("within_noise", images=images, rows=", ".join(line.name for line in rows))


def _combination(result: StudyResult) -> Iterator[Observation]:
    limit = _limit(result)
    good = [line for line in _lines(result) if _bears(line, limit) and line.figures.file_bytes]
    combined = {line.name for line in _lines(result, "combinations")}
    smallest = min(good, key=lambda line: line.figures.file_bytes or 0.0, default=None)
    if smallest is not None and smallest.name in combined:
        yield _say(
            "combination_smallest", row=smallest.name, limit=Value("points", limit), change=_change(smallest),
            mb=Value("mb", smallest.figures.file_bytes), x=Value("x", smallest.figures.size_x),
        )  # fmt: skip


def _energy(result: StudyResult) -> Iterator[Observation]:
    dense, groups = _dense(result), result.study.measure.get("groups")
    is_asked = not isinstance(groups, list) or "energy" in groups
    if is_asked and dense is not None and dense.figures.j_per_image is None:
        yield _say("no_energy")


RULES: tuple[Rule, ...] = (
    _times, _masks, _stored, _zeros_and_speed, _bearable, _improved, _structured, _int8, _int8_speed, _combination,
    _collapsed, _noise, _energy,
)  # fmt: skip
"""What is looked for, in the order in which it is told."""
