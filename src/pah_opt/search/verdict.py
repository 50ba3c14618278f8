"""What a search says of its pick in words: why there is none, and what helps where the test images disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.report.figures import figure
from pah_opt.search.loop import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.report import Report
    from pah_opt.search.budget import Budget
    from pah_opt.search.judge import Figures
    from pah_opt.search.loop import End
    from pah_opt.search.records import Record
    from pah_opt.search.result import SearchResult


EARLY = {
    "time": "the time was up before the first one ended (measuring the dense model is part of it); give more minutes",
    "ctrl-C": "ctrl-C came before the first one ended; run the same command again",
    "error": "an error came before the first one ended",
}
"""Why there is no trial, by what ended the search."""


def no_pick(records: Sequence[Record], budget: Budget, dense: Figures, end: End) -> str:
    """Say why there is no pick: what came nearest to the limits.

    Args:
        records: every trial.
        budget: the limits.
        dense: figures of the dense model.
        end: what ended the search.
    """
    if not records:
        return f"no trial was judged: {EARLY[end]}"
    kept = [record for record in records if record.recipe and record.keeps(budget)]
    known = [record for record in kept if record.figures.get(budget.figure) is not None]
    if known:
        return _dense_is_best(min(known, key=lambda record: record.figures[budget.figure] or 0.0), budget, dense)
    return _nearest(records, budget)


def _dense_is_best(nearest: Record, budget: Budget, dense: Figures) -> str:
    values = [", ".join(describe({budget.figure: each.get(budget.figure)})) for each in (nearest.figures, dense)]
    return (
        f"the dense model itself is the cheapest that keeps the limits: no recipe has less {budget.minimise}; the "
        f"nearest is {nearest.name}: {values[0]} against {values[1]}"
    )


def _nearest(records: Sequence[Record], budget: Budget) -> str:
    judged = [record for record in records if record.figures.get("top1_drop_pp") is not None and record.recipe]
    if not judged:
        states = ", ".join(sorted({record.state for record in records}))
        return f"no trial could be judged ({states}); look at the reasons of each trial"
    nearest = min(judged, key=lambda record: sum(budget.excess(record.figures).values()))
    missed = budget.excess(nearest.figures)
    unknown = "judged on part of the images only" if nearest.state == "stopped" else f"its {budget.figure} is unknown"
    words = ", ".join(_missed(name, nearest, budget) for name in missed) or unknown
    return f"no trial keeps every limit; the nearest is {nearest.name}, which misses: {words}"


def unlucky(report: Report, result: SearchResult) -> list[str]:
    """Say what helps where the pick loses more on the test images than on those that decided."""
    drop, limit = figure("top1_drop_pp").find(report.models[-1]).value, result.budget.top1_drop_pp
    if drop is None or drop <= limit:
        return []
    remedy = "decide on more of them (validation_images, more training images)"
    if result.budget.confidence is None:
        remedy += ", or say how sure the limit must be: confidence=0.9 among the limits"
    note = (
        f"the pick loses {drop:.1f} pp on the test images, more than the limit of {limit:g} pp that it keeps on the "
        f"{result.validation_images} validation images: the best of many recipes was lucky on them; {remedy}"
    )
    return [note]


def _missed(name: str, record: Record, budget: Budget) -> str:
    doubt = ""
    if name == "top1_drop_pp" and budget.confidence is not None:
        doubt = f" (its error {record.figures.get('top1_drop_error_pp') or 0.0:.2g}, confidence {budget.confidence:g})"
    return f"{name} {record.figures[name]:,.4g}{doubt}"
