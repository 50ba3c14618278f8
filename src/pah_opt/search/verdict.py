"""What a search says of its pick in words: why there is none, and what helps where the test images disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.report.figures import figure

if TYPE_CHECKING:
    from pah_opt.report import Report
    from pah_opt.search.budget import Budget
    from pah_opt.search.records import Record
    from pah_opt.search.result import SearchResult


def no_pick(records: list[Record], budget: Budget) -> str:
    """Say why there is no pick: what came nearest to the limits."""
    judged = [record for record in records if record.figures.get("top1_drop_pp") is not None and record.recipe]
    if not judged:
        states = ", ".join(sorted({record.state for record in records})) or "none was run"
        return f"no trial could be judged ({states}); look at the reasons of each trial"
    nearest = min(judged, key=lambda record: sum(budget.excess(record.figures).values()))
    missed = budget.excess(nearest.figures)
    words = ", ".join(_missed(name, nearest, budget) for name in missed) or "judged on part of the images only"
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
