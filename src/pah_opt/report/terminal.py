"""The summary as a plain table that fits a terminal."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from pah_opt.report.explain import explain
from pah_opt.report.notes import all_notes
from pah_opt.report.summary import Column, summary

if TYPE_CHECKING:
    from pah_opt.report.schema import Report


def to_text(report: Report, width: int = 80) -> str:
    """Render the summary ``width`` columns wide, without colour; what does not fit is left to the other renderings."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns, left_out = _fitting(summary(report, intervals=False), width)
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for position, column in enumerate(columns):
        table.add_column(column.title, justify="left" if position == 0 else "right", overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    screen = io.StringIO()
    console = Console(file=screen, width=width, no_color=True, highlight=False, force_terminal=False)
    console.print(table)
    for note in (*all_notes(report), *_words(report), *_left_out(left_out)):
        console.print(Text(f"* {note}"))
    return "\n".join(line.rstrip() for line in screen.getvalue().splitlines()) + "\n"


def _fitting(columns: list[Column], width: int) -> tuple[list[Column], list[str]]:
    """Leave out the least important columns until the rest fits without wrapping figures."""
    kept, left_out = list(columns), []
    while len(kept) > 2 and _width(kept) > width:
        least = min(kept, key=lambda column: column.weight)
        kept.remove(least)
        left_out.append(least.title)
    return kept, left_out


def _width(columns: list[Column]) -> int:
    # A title may wrap at its spaces; a figure may not.
    return sum(max(*map(len, column.cells), *map(len, column.title.split())) + 2 for column in columns) - 2


def _words(report: Report) -> list[str]:
    return [f"{name}: {sentence}" for name, sentences in explain(report).items() for sentence in sentences]


def _left_out(titles: list[str]) -> list[str]:
    return [f"Not shown at this width: {', '.join(reversed(titles))}."] if titles else []
