"""A search as one self-contained page: the front, what matters, every trial; no script, no network."""

from __future__ import annotations

from html import escape
from statistics import median
from typing import TYPE_CHECKING

from pah_opt.recipe import Recipe
from pah_opt.recipe.files import to_yaml
from pah_opt.report import svg
from pah_opt.report.numbers import DASH, decimals, figures, megabytes
from pah_opt.report.page import page
from pah_opt.report.pareto import AxisOf, Point
from pah_opt.search.budget import FIGURES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pah_opt.search.budget import Objective
    from pah_opt.search.records import Record
    from pah_opt.search.result import SearchResult

COSTS: dict[Objective, tuple[float, str]] = {
    "latency": (1.0, "median latency, ms"), "size": (1e-6, "file, MB"), "macs": (1e-6, "million MACs"),
    "params": (1e-6, "million parameters"), "energy": (1.0, "J an image"),
}  # fmt: skip
COLUMNS = ("recipe", "state", "top-1 lost, pp", "file, MB", "latency, ms", "prediction off by", "speed-up", "MACs, M")
LAST_COLUMNS = ("images", "s", "from")
SHOWN: frozenset[Objective] = frozenset({"latency", "size", "macs"})
"""Costs that have a column of their own, minimised or not."""


def to_html(result: SearchResult) -> str:
    """Render the page."""
    title = f"Search {result.space.name}"
    body = "\n".join((_head(result, title), _pick(result), _plots(result), _importances(result), _trials(result)))
    return page(title, body)


def _head(result: SearchResult, title: str) -> str:
    limits = ", ".join(
        f"{name} at most {gate.max:,g}" if gate.max is not None else f"{name} at least {gate.min:,g}"
        for name, gate in result.budget.limits().items()
    )
    lead = f"Least {result.budget.minimise} with {limits}; {len(result.records)} trials in {result.seconds:,.0f} s"
    notes = [*([result.why_no_pick] if result.why_no_pick else []), *result.notes]
    notes += ["Interrupted: what had ended until then is shown."] if result.interrupted else []
    notes += ["Every recipe of the space was tried."] if result.exhausted else []
    shown = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n{shown}\n</header>'


def _pick(result: SearchResult) -> str:
    if result.pick is None or result.report is None:
        return ""
    rows = ""
    for model in result.report.models:
        for gate in model.vs_baseline.gates:
            value = "unknown" if gate.value is None else figures(abs(gate.value), 4)
            sign = "-" if gate.value is not None and gate.value < 0 else ""
            rows += (
                f'<tr><th scope="row">{escape(gate.metric)}</th><td>{sign}{value}</td><td>{escape(gate.limit)}</td>'
                f'<td class="{gate.verdict}">{gate.verdict}</td></tr>\n'
            )
    return (
        f"<section>\n<h2>The pick, on the test images</h2>\n<pre>{escape(to_yaml(result.pick))}</pre>\n"
        '<div class="scroll" tabindex="0"><table><thead><tr><th>figure</th><th>measured</th><th>limit</th><th>gate</th>'
        f"</tr></thead><tbody>\n{rows}</tbody></table></div>\n</section>"
    )


def _plots(result: SearchResult) -> str:
    scale, label = COSTS[result.budget.minimise]
    across = AxisOf((), scale, result.budget.minimise, label)
    upwards = AxisOf((), 1.0, "top-1", "top-1 lost, pp (validation)")
    on_front = {record.number for record in result.front}
    shown = [
        Point(str(record.number) if record.number in on_front else "", cost * scale, drop)
        for record in result.records
        if record.judged
        and (cost := record.figures.get(result.budget.figure)) is not None
        and (drop := record.figures.get("top1_drop_pp")) is not None
    ]
    if len(shown) < 2:
        return ""
    return (
        '<section>\n<h2>Front</h2>\n<div class="plots"><figure>\n<figcaption>Loss against cost<span>down and to the '
        "left is better; blue: nothing beats it; numbers are trials</span></figcaption>\n"
        f"{svg.scatter(shown, across, upwards)}\n</figure></div>\n</section>"
    )


def _importances(result: SearchResult) -> str:
    if not result.importances:
        return ""
    names = sorted({name for found in result.importances.values() for name in found})
    names.sort(key=lambda name: -max(found.get(name, 0.0) for found in result.importances.values()))
    head = "".join(f"<th>for {escape(figure)}</th>" for figure in result.importances)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(_share(found.get(name)) for found in result.importances.values())
        + "</tr>\n"
        for name in names
    )
    return (
        '<section>\n<h2>What matters</h2>\n<div class="scroll" tabindex="0"><table><caption>share of the differences '
        f"between trials (PED-ANOVA)</caption><thead><tr><th>parameter</th>{head}</tr></thead>"
        f"<tbody>\n{rows}</tbody></table></div>\n</section>"
    )


def _share(value: float | None) -> str:
    percent = 100.0 * (value or 0.0)
    return f'<td class="bar" style="--share: {percent:.1f}%">{percent:.0f} %</td>'


def _trials(result: SearchResult) -> str:
    minimise = result.budget.minimise
    extra = None if minimise in SHOWN else minimise
    columns = (*COLUMNS, *([COSTS[extra][1]] if extra else []), *LAST_COLUMNS)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    rows = "".join(_row(record, extra) for record in result.records)
    records = "".join(_details(record) for record in result.records if record.recipe is not None)
    return (
        '<section>\n<h2>Every trial</h2>\n<div class="scroll" tabindex="0">'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n{_off(result)}{records}"
        "</section>"
    )


def _off(result: SearchResult) -> str:
    """Say how far latencies were predicted off, over all trials."""
    found = [abs(off) for record in result.records if (off := latency_off(record)) is not None]
    if not found:
        return ""
    return (
        f"<p>Latencies of {len(found)} trials were predicted before they ran: off by {100 * median(found):.1f} % "
        f"(median), {100 * max(found):.1f} % at most.</p>\n"
    )


def latency_off(record: Record) -> float | None:
    """Return how far the predicted latency is above the measured one, as a share of it; None where one is unknown."""
    predicted, measured = (each.get("latency_p50_ms") for each in (record.predicted, record.figures))
    return None if predicted is None or not measured else predicted / measured - 1.0


def _row(record: Record, extra: Objective | None) -> str:
    known = record.figures
    off = latency_off(record)
    cells = (
        record.state, decimals(known.get("top1_drop_pp"), 2, sign=True), megabytes(known.get("artifact_bytes")),
        figures(known.get("latency_p50_ms")), DASH if off is None else f"{100 * off:+.1f} %",
        decimals(known.get("speedup_p50_x")), _cost(known, "macs"), *([_cost(known, extra)] if extra else []),
        str(record.rungs[-1].images) if record.rungs else "", decimals(record.seconds, 1), record.origin,
    )  # fmt: skip
    kind = ' class="failed"' if record.state in ("failed", "timed-out", "out-of-memory") else ""
    first = f'<th scope="row">{escape(record.name)}</th><td{kind}>{escape(cells[0])}</td>'
    return f"<tr>{first}{''.join(f'<td>{escape(cell)}</td>' for cell in cells[1:])}</tr>\n"


def _cost(known: Mapping[str, float | None], name: Objective) -> str:
    value = known.get(FIGURES[name])
    return figures(None if value is None else value * COSTS[name][0])


def _details(record: Record) -> str:
    """Everything that is known of one trial."""
    parts = {
        "predicted": _listed(record.predicted), "measured": _listed(record.figures),
        "top-1 lost on growing parts": ", ".join(f"{each.drop_pp:+.2f} pp on {each.images}" for each in record.rungs),
        "chosen": ", ".join(f"{name} {value}" for name, value in record.values.items()),
    }  # fmt: skip
    reason = f"<p>{escape(record.reason)}</p>" if record.reason else ""
    said = "".join(f"<p>{name}: {escape(text)}</p>" for name, text in parts.items() if text)
    text = to_yaml(Recipe(**dict(record.recipe or {})))
    summary = f"<summary>{escape(record.name)}: {escape(record.state)}</summary>"
    return f"<details>{summary}{reason}{said}<pre>{escape(text)}</pre></details>\n"


def _listed(known: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {DASH if value is None else f'{value:,.6g}'}" for name, value in known.items())
