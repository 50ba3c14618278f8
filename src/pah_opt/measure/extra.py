"""Figures that plugins add; a metric that fails becomes a reason, never an end to the report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pah_opt.measure.model_report import ExtraFigure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pah_opt.measure.candidate import Candidate
    from pah_opt.metric import Metric
    from pah_opt.splits import Split


def extra_figures(metrics: Mapping[str, Metric], candidate: Candidate, split: Split | None) -> dict[str, ExtraFigure]:
    """Measure every registered metric of one model."""
    return {name: _measured(metric, candidate, split) for name, metric in metrics.items()}


def _measured(metric: Metric, candidate: Candidate, split: Split | None) -> ExtraFigure:
    try:
        sized = None if split is None else split.resized(*candidate.input_shape[1:])
        value, reason = metric.measure(candidate.model, candidate.adapter, sized)
        value = None if value is None else float(value)
    except Exception as error:  # noqa: BLE001  # a plugin may raise anything; it is that figure's reason
        value, reason = None, f"{type(error).__name__}: {error}"
    if value is not None and not math.isfinite(value):
        value, reason = None, f"the metric gave {value}"
    if value is None and not reason:
        reason = "the metric gave no value and no reason"
    return ExtraFigure(
        value=value, reason=reason if value is None else None, summary=metric.summary, better=metric.better
    )
