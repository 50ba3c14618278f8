"""The tables of a study's report: cells ready to print, columns that hold no figure left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pah_opt.report.numbers import DASH
from pah_opt.study.choice import by_size
from pah_opt.study.messages import Value, Wording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.study.choice import Choice
    from pah_opt.study.messages import Kind
    from pah_opt.study.results import AdaptationResult, Line, StudyResult


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        headers: titles of the columns.
        rows: cells; the first names the row.
        bad: names of rows that are marked as wrong.
        best: names of rows that are marked as chosen.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bad: frozenset[str] = frozenset()
    best: frozenset[str] = frozenset()


Cell = Callable[["Line"], str]


def _table(columns: Sequence[tuple[str, Sequence[str]]], **marks: frozenset[str]) -> Table:
    """Make a table of the columns that hold anything; the first one always stays."""
    kept = [column for at, column in enumerate(columns) if not at or any(cell not in ("", DASH) for cell in column[1])]
    headers = tuple(title for title, _ in kept)
    return Table(headers, tuple(zip(*(cells for _, cells in kept), strict=True)), **marks)


def rows(lines: Sequence[Line], w: Wording) -> Table:
    """Return the figures of rows, the dense model first."""
    latency = next((line.figures.latency_batch for line in lines if line.figures.latency_batch), None)
    largest = next((line.figures.throughput_batch for line in lines if line.figures.throughput_batch), None)
    columns: list[tuple[str, Cell]] = [
        (w.say("column_row"), lambda line: line.name),
        (w.say("column_version"), lambda line: _version(line, w)),
        (w.say("column_top1"), _figure("top1", "share", w)),
        (w.say("column_change"), lambda line: _change(line, w)),
        (w.say("column_zeros"), _figure("sparsity_pct", "pct", w)),
        (w.say("column_file"), _figure("file_bytes", "mb", w)),
        (w.say("column_smaller"), _figure("size_x", "x", w)),
        (w.say("column_latency", batch=_count(latency)), _figure("latency_ms", "ms", w)),
        (w.say("column_faster"), _figure("speedup_x", "x", w)),
        (w.say("column_throughput", batch=_count(largest)), _at_largest("images_per_s", largest, w)),
        (w.say("column_energy"), _at_largest("j_per_image", largest, w)),
        (w.say("column_made"), _figure("made_s", "seconds", w)),
        (w.say("column_note"), lambda line: _remark(line, w)),
    ]
    bad = frozenset(line.name for line in lines if line.collapsed or not line.ran)
    return _table([(title, [cell(line) for line in lines]) for title, cell in columns], bad=bad)


def _figure(name: str, kind: Kind, w: Wording) -> Cell:
    return lambda line: w.write(Value(kind, getattr(line.figures, name)), unit=False)


def _at_largest(name: str, usual: float | None, w: Wording) -> Cell:
    """Write a figure of the largest batch; with the batch where a slow row was measured at a smaller one."""

    def cell(line: Line) -> str:
        value, batch = getattr(line.figures, name), line.figures.throughput_batch
        text = w.write(Value("number", value), unit=False)
        return text if value is None or batch in (None, usual) else f"{text} ({w.say('at_batch', batch=_count(batch))})"

    return cell


def _version(line: Line, w: Wording) -> str:
    if line.row is None:
        return ""
    return w.say("naive" if line.is_naive else "library")


def _change(line: Line, w: Wording) -> str:
    drop = line.figures.top1_drop_pp
    return w.write(Value("change", None if drop is None else -drop), unit=False)


def _count(number: float | None) -> str:
    return "?" if number is None else f"{number:.0f}"


def _remark(line: Line, w: Wording) -> str:
    said = [w.say("failed")] if line.error is not None else []
    said += [w.say("unavailable")] if line.unavailable is not None else []
    said += [w.say("collapsed")] if line.collapsed else []
    if line.figures.file_without_masks_bytes is not None:
        said.append(w.say("remark_masks", mb=Value("mb", line.figures.file_without_masks_bytes)))
    if line.top1_spread_pp is not None:
        said.append(w.say("remark_spread", points=Value("points", line.top1_spread_pp)))
    if line.seeds_missing:
        said.append(w.say("remark_seeds", n=Value("count", line.seeds_missing)))
    return ", ".join(said)


def adaptations(result: StudyResult, w: Wording) -> Table:
    """Return accuracy, time and size of each adaptation with each seed."""
    several = len(result.study.seeds) > 1
    found = result.adaptations

    def column(key: str, value: Callable[[AdaptationResult], Value]) -> tuple[str, list[str]]:
        return w.say(key), [w.write(value(each), unit=False) for each in found]

    names = [f"{each.name} ({each.seed})" if several else each.name for each in found]
    return _table(
        [
            (w.say("column_adaptation"), names),
            column("column_top1", lambda each: Value("share", each.top1)),
            column("column_validation", lambda each: Value("share", each.validation_top1)),
            column("column_time", lambda each: Value("seconds", each.seconds)),
            column("column_trained", lambda each: Value("count", each.trained_params)),
            column("column_weights", lambda each: Value("mb", each.weights_bytes)),
            column("column_loss", lambda each: Value("number", each.losses[-1] if each.losses else None)),
            (w.say("column_note"), [_adapted_remark(each, w) for each in found]),
        ],
        bad=frozenset(name for name, each in zip(names, found, strict=True) if each.error is not None),
        best=frozenset(name for name, each in zip(names, found, strict=True) if each.name == result.base),
    )


def _adapted_remark(found: AdaptationResult, w: Wording) -> str:
    if found.error is not None:
        return w.say("failed")
    return "" if found.stopped is None else w.say("stopped", reason=found.stopped)


def references(result: StudyResult, choice: Choice, w: Wording) -> Table:
    """Return published figures with the dense model and the pick among them, the most accurate first."""
    published = [
        (each.top1_pct, each.model, Value("number", each.params_millions), each.source,
         "" if each.note is None else w.text(each.note))
        for each in result.study.references
    ]  # fmt: skip
    dense = next((line for line in result.lines() if line.row is None), None)
    own = {line.name: line for line in (dense, choice.pick) if line is not None and line.figures.top1 is not None}
    here = w.say("measured_here", images=Value("count", result.conditions.test_images))
    published += [
        (100.0 * (line.figures.top1 or 0.0), w.say("this_study", name=name),
         Value("number", None if line.figures.params is None else line.figures.params / 1e6), here, "")
        for name, line in own.items()
    ]  # fmt: skip
    published.sort(key=lambda each: -each[0])
    return _table(
        [
            (w.say("column_model"), [each[1] for each in published]),
            (w.say("column_top1"), [w.write(Value("points", each[0]), unit=False) for each in published]),
            (w.say("column_params"), [w.write(each[2], unit=False) for each in published]),
            (w.say("column_source"), [each[3] for each in published]),
            (w.say("column_note"), [each[4] for each in published]),
        ],
        best=frozenset(w.say("this_study", name=name) for name in own),
    )


def sizes(result: StudyResult, w: Wording) -> Table:
    """Return the most accurate row for each size of file."""
    found = by_size(result)

    def column(key: str, name: str, kind: Kind) -> tuple[str, list[str]]:
        figures = [None if line is None else getattr(line.figures, name) for _, line in found]
        return w.say(key), [w.write(Value(kind, figure), unit=False) for figure in figures]

    return _table([
        (w.say("column_room"), [w.write(Value("number", size), unit=False) for size, _ in found]),
        (w.say("column_row"), [w.say("nothing_fits") if line is None else line.name for _, line in found]),
        column("column_top1", "top1", "share"),
        column("column_file", "file_bytes", "mb"),
        column("column_faster", "speedup_x", "x"),
    ])  # fmt: skip
