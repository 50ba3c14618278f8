"""The report as CSV: one row for each model and batch size, every figure a column."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from pah_opt.measure.schema import (
    Accuracy,
    Energy,
    Group,
    Latency,
    Memory,
    ModelSize,
    Ratio,
    Throughput,
    Utilization,
    VsBaseline,
    Workload,
)

if TYPE_CHECKING:
    from pah_opt.measure.model_report import ModelReport
    from pah_opt.measure.schema import Timing
    from pah_opt.report.schema import Report

OF_TIMING: tuple[tuple[str, type[Group]], ...] = (
    ("workload", Workload), ("latency", Latency), ("throughput", Throughput), ("energy", Energy),
    ("utilization", Utilization), ("ratio", Ratio),
)  # fmt: skip
OF_MODEL: tuple[tuple[str, type[Group]], ...] = (
    ("accuracy", Accuracy), ("model", ModelSize), ("memory", Memory), ("vs_baseline", VsBaseline),
)  # fmt: skip
LEFT_OUT = frozenset({"latency.samples_ms"})
"""A list that makes no sense in a cell."""


def to_csv(report: Report) -> str:
    """Render every figure; a cell is empty where there is none (the JSON says why)."""
    extra = sorted({name for model in report.models for name in model.extra})
    header = ["model", *_names(OF_TIMING), *_names(OF_MODEL), *(f"extra.{name}" for name in extra)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for model in report.models:
        for timing in model.timings or (None,):
            writer.writerow(_cells(model, timing, extra))
    return text.getvalue()


def _names(groups: tuple[tuple[str, type[Group]], ...]) -> list[str]:
    names = [f"{group}.{name}" for group, kind in groups for name in kind.figures()]
    return [name for name in names if name not in LEFT_OUT]


def _cells(model: ModelReport, timing: Timing | None, extra: list[str]) -> list[str]:
    cells = [_safe(model.id)]
    cells += [_cell(timing, name) for name in _names(OF_TIMING)]
    cells += [_cell(model, name) for name in _names(OF_MODEL)]
    return cells + [_written(model.extra[name].value) if name in model.extra else "" for name in extra]


def _cell(owner: object, name: str) -> str:
    group, _, figure = name.partition(".")
    return "" if owner is None else _written(getattr(getattr(owner, group), figure))


def _written(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(map(_written, value))
    if isinstance(value, dict):
        return " ".join(f"{key}={_written(item)}" for key, item in value.items())
    return repr(value) if isinstance(value, float) else _safe(str(value))


def _safe(text: str) -> str:
    # Spreadsheets run cells that start like a formula.
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
