"""The report as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.report.explain import block_changes, explain
from pah_opt.report.notes import all_notes, conditions
from pah_opt.report.summary import summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pah_opt.measure.model_report import ModelReport
    from pah_opt.report.schema import Report


def to_markdown(report: Report) -> str:
    """Render the whole report."""
    columns = summary(report)
    parts = ["# Comparison" if len(report.models) > 1 else f"# {_escaped(report.baseline_id)}", ""]
    parts += table([column.title for column in columns], zip(*(column.cells for column in columns), strict=True))
    parts += _list("Notes", all_notes(report))
    parts += _gates(report.baseline)
    for model in report.candidates:
        parts += _list(model.id, explain(report)[model.id])
        parts += _steps(model)
        parts += _blocks(model, report.baseline)
        parts += _gates(model)
    parts += _list("Conditions", [f"{label}: {value}" for label, value in conditions(report)])
    return "\n".join(parts).rstrip() + "\n"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table, the first column to the left and the others to the right."""
    marks = ["---"] + ["---:"] * (len(headers) - 1)
    return [_row(headers), _row(marks, escape=False), *(_row(row) for row in rows), ""]


def _row(cells: Sequence[str], *, escape: bool = True) -> str:
    return "| " + " | ".join(_escaped(cell) if escape else cell for cell in cells) + " |"


def _escaped(text: str) -> str:
    for character in "\\|*_<`":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")


def _list(title: str, items: Sequence[str]) -> list[str]:
    return [f"## {_escaped(title)}", "", *(f"- {_escaped(item)}" for item in items), ""] if items else []


def _gates(model: ModelReport) -> list[str]:
    return _list("Gates", [f"{gate.shown}: {gate.message}" for gate in model.vs_baseline.gates])


def _steps(model: ModelReport) -> list[str]:
    rows = step_rows(model)
    return ["### After each step", "", *table(rows[0], rows[1:])] if rows else []


def step_rows(model: ModelReport) -> list[tuple[str, ...]]:
    """Return the figures after each step of the recipe that made a model, headers first; nothing without a recipe."""
    if not model.steps:
        return []
    rows: list[tuple[str, ...]] = [
        ("step", "params", "MACs", "MB in memory", "top-1 held out %", "seconds"),
        ("before", *_step_cells(model.steps[0].before), ""),
    ]
    rows += [
        (f"{number}. {step.use}", *_step_cells(step.after), f"{step.seconds:.1f}" if step.seconds is not None else "")
        for number, step in enumerate(model.steps, start=1)
    ]
    return rows


def _step_cells(figures: Mapping[str, object]) -> tuple[str, str, str, str]:
    top1 = _number(figures, "held_out_top1")
    return (
        _written(_number(figures, "params"), "{:,.0f}"),
        _written(_number(figures, "macs"), "{:,.0f}"),
        _written(_number(figures, "weights_bytes"), "{:,.2f}", 1e-6),
        _written(top1, "{:.2f}", 100.0),
    )


def _number(figures: Mapping[str, object], name: str) -> float | None:
    value = figures.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def _written(value: float | None, form: str, scale: float = 1.0) -> str:
    return "" if value is None else form.format(value * scale)


def _blocks(model: ModelReport, baseline: ModelReport) -> list[str]:
    rows = block_changes(model, baseline)
    if not any("→" in cell for row in rows for cell in row):
        return []
    return ["### Block by block", "", *table(("block", "heads", "MLP width", "stored as", "zeros"), rows)]
