"""The one table that every rendering shows: a row for each model, a column for each figure that anyone has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from pah_opt.report.numbers import DASH, decimals, figures, megabytes, scaled, times

if TYPE_CHECKING:
    from pah_opt.measure.model_report import ModelReport
    from pah_opt.measure.schema import Timing
    from pah_opt.report.schema import Report


class Column(NamedTuple):
    """A column of the table.

    Args:
        title: with the unit.
        cells: one for each model, ready to print.
        weight: columns with less weight are left out first where space is short.
    """

    title: str
    cells: tuple[str, ...]
    weight: int


Cell = Callable[["ModelReport"], str]


def summary(report: Report, *, intervals: bool = True) -> list[Column]:
    """Return the columns of the summary that hold at least one figure; the first names the models.

    Args:
        report: the report.
        intervals: write intervals behind values.
    """
    columns = [Column("model", tuple(model.id for model in report.models), 100)]
    for title, cell, weight in _cells(report, intervals=intervals):
        cells = tuple(cell(model) for model in report.models)
        if any(text != DASH for text in cells):
            columns.append(Column(title, cells, weight))
    return columns


def _cells(report: Report, *, intervals: bool) -> list[tuple[str, Cell, int]]:
    small, large = _batch(report.baseline.latency_timing), _batch(report.baseline.throughput_timing)
    return [
        ("top-1 %", lambda m: decimals(_percent(m.accuracy.top1)), 90),
        ("change pp", lambda m: _change(m, intervals=intervals), 80),
        ("file MB", lambda m: megabytes(m.memory.artifact_bytes), 85),
        ("params", lambda m: scaled(m.model.params), 50),
        ("zeros %", lambda m: decimals(m.model.sparsity_pct, 1), 40),
        ("GMAC", lambda m: figures(None if m.model.macs is None else m.model.macs / 1e9), 45),
        (f"ms, batch {small}", lambda m: figures(m.latency_timing.latency.p50_ms) if m.latency_timing else DASH, 70),
        (
            "faster",
            lambda m: times(m.vs_baseline.speedup_p50_x, m.vs_baseline.speedup_ci95_x if intervals else None),
            75,
        ),
        (
            f"images/s, batch {large}",
            lambda m: figures(m.throughput_timing.throughput.images_per_s) if m.throughput_timing else DASH,
            60,
        ),
        ("throughput", lambda m: times(m.vs_baseline.throughput_x), 78),
        ("J/image", lambda m: figures(m.throughput_timing.energy.j_per_image) if m.throughput_timing else DASH, 55),
        ("MFU %", lambda m: decimals(m.throughput_timing.utilization.mfu_pct, 0) if m.throughput_timing else DASH, 30),
        ("gates", _gates, 82),
    ]


def _batch(timing: Timing | None) -> str:
    return str(timing.workload.batch_size) if timing is not None else "?"


def _percent(share: float | None) -> float | None:
    return None if share is None else 100.0 * share


def _change(model: ModelReport, *, intervals: bool) -> str:
    accuracy = model.accuracy
    text = decimals(accuracy.top1_delta_pp, 2, sign=True)
    if intervals and accuracy.top1_ci95_pp is not None:
        low, high = accuracy.top1_ci95_pp
        text += f" ({low:+.2f} to {high:+.2f})"
    return text


def _gates(model: ModelReport) -> str:
    gates = model.vs_baseline.gates
    if not gates:
        return DASH
    if failed := [gate.metric for gate in gates if gate.passed is False]:
        return f"failed: {', '.join(failed)}"
    unchecked = sum(gate.passed is None for gate in gates)
    if not unchecked:
        return "passed"
    return f"{f'passed, {unchecked} ' if unchecked < len(gates) else ''}not checked (no baseline)"
