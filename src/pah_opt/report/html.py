"""The report as one self-contained page: no script, no network; light and dark, phone and desktop."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from pah_opt.report import svg
from pah_opt.report.details import details
from pah_opt.report.notes import all_notes, conditions
from pah_opt.report.page import page
from pah_opt.report.pareto import AXES, Axis, points
from pah_opt.report.summary import summary

if TYPE_CHECKING:
    from pah_opt.report.schema import Report


def to_html(report: Report) -> str:
    """Render the page."""
    title = "Comparison" if report.candidates else report.baseline_id
    body = "\n".join((_head(report, title), _summary(report), _plots(report), details(report), _conditions(report)))
    return page(title, body)


def _head(report: Report, title: str) -> str:
    others = len(report.candidates)
    against = f"{others} model{'s' if others > 1 else ''} against {report.baseline_id}" if others else "One model"
    where = f"{against}, on {report.env.device_name or 'an unknown device'}, {report.run.timestamp_utc[:10]}"
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in all_notes(report) if "Compared with" not in note)
    return f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(where)}</p>\n{notes}\n</header>'


def _summary(report: Report) -> str:
    columns = summary(report)
    head = "".join(f'<th scope="col">{_unbroken(column.title)}</th>' for column in columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(cells[0])}</th>{"".join(_cell(text) for text in cells[1:])}</tr>\n'
        for cells in zip(*(column.cells for column in columns), strict=True)
    )
    return (
        '<section>\n<h2>Figures</h2>\n<div class="scroll" tabindex="0">'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n</section>"
    )


def _unbroken(title: str) -> str:
    """Keep a unit on the line of what it measures, and top-1 in one piece."""
    title = title.replace("-", "\N{NON-BREAKING HYPHEN}")
    for unit in ("%", "pp", "MB"):
        title = title.replace(f" {unit}", f"\N{NO-BREAK SPACE}{unit}")
    return escape(title)


def _cell(text: str) -> str:
    value, bracket, interval = text.partition(" (")
    if text.startswith("failed"):
        return f'<td class="failed">{escape(text)}</td>'
    if text == "passed":
        return '<td class="passed">passed</td>'
    return f"<td>{escape(value)}{f'<small>{escape(interval[:-1])}</small>' if bracket else ''}</td>"


def _plots(report: Report) -> str:
    drawn = [_tradeoff(report, axis) for axis in AXES] + [_latencies(report)]
    drawn += [_figure(title, "", svg.line(curve, title)) for title, curve in report.curves.items() if len(curve.x) > 1]
    shown = [figure for figure in drawn if figure]
    return f'<section>\n<h2>Plots</h2>\n<div class="plots">\n{"".join(shown)}</div>\n</section>' if shown else ""


def _tradeoff(report: Report, axis: Axis) -> str:
    shown, upwards = points(report, axis)
    if len(shown) < 2:
        return ""
    title = f"{upwards.title.capitalize()} against {AXES[axis].title}"
    return _figure(
        title, "up and to the left is better; blue: nothing beats it", svg.scatter(shown, AXES[axis], upwards)
    )


def _latencies(report: Report) -> str:
    samples = [
        (model.id, timing.latency.samples_ms)
        for model in report.models
        if (timing := model.latency_timing) is not None and timing.latency.samples_ms
    ]
    if not samples:
        return ""
    timing = report.baseline.latency_timing
    batch = timing.workload.batch_size if timing is not None else None
    return _figure(
        f"Latency at batch {batch}", "box: middle half; line: 5th to 95th percentile",
        svg.distributions(samples, "latency, ms"),
    )  # fmt: skip


def _figure(title: str, hint: str, drawing: str) -> str:
    subtitle = f"<span>{escape(hint)}</span>" if hint else ""
    return f"<figure>\n<figcaption>{escape(title)}{subtitle}</figcaption>\n{drawing}\n</figure>\n"


def _conditions(report: Report) -> str:
    items = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in conditions(report))
    return f"<section>\n<h2>Conditions</h2>\n<dl>{items}</dl>\n</section>"
