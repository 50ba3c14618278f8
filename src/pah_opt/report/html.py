"""The report as one self-contained page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pah_opt.report.schema import Report


def to_html(report: Report) -> str:
    """Render the page."""
    from pah_opt.report.markdown import to_markdown

    return to_markdown(report)
