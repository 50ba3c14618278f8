"""The summary as a plain table that fits a terminal."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING

from pah_opt.report.explain import explain
from pah_opt.report.notes import all_notes
from pah_opt.report.summary import Column, summary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.report.schema import Report

GAP = 2
"""Blanks between two columns."""


def to_text(report: Report, width: int = 80) -> str:
    """Render the summary ``width`` columns wide, without colour; what does not fit is left to the other renderings."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns, left_out = _fitting(_with_names_wrapped(summary(report, intervals=False), width // 2), width)
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, GAP, 0, 0))
    for position, (column, wide) in enumerate(zip(columns, _widths(columns, width), strict=True)):
        table.add_column(column.title, justify="left" if position == 0 else "right", overflow="fold", width=wide)
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    screen = io.StringIO()
    console = Console(file=screen, width=width, no_color=True, highlight=False, force_terminal=False)
    console.print(table)
    for note in (*all_notes(report), *_words(report), *_left_out(left_out)):
        console.print(Text(f"* {note}"))
    return "\n".join(line.rstrip() for line in screen.getvalue().splitlines()) + "\n"


def _with_names_wrapped(columns: list[Column], longest: int) -> list[Column]:
    """Break names that would take more than ``longest`` characters, at their hyphens where they have any."""
    names, *others = columns
    return [names._replace(cells=tuple("\n".join(textwrap.wrap(name, longest)) for name in names.cells)), *others]


def _fitting(columns: list[Column], width: int) -> tuple[list[Column], list[str]]:
    """Leave out the least important columns until the rest fits without wrapping figures."""
    kept, left_out = list(columns), []
    while len(kept) > 2 and _total(map(_least, kept)) > width:
        least = min(kept, key=lambda column: column.weight)
        kept.remove(least)
        left_out.append(least.title)
    return kept, left_out


def _widths(columns: list[Column], width: int) -> list[int]:
    """Share out the width: what each column needs, then room for whole titles as long as there is any."""
    # rich would take the room from all columns alike, and break names and figures in two.
    shares = [_least(column) for column in columns]
    for position, column in enumerate(columns):
        spare = width - _total(shares)
        shares[position] += max(0, min(len(column.title) - shares[position], spare))
    return shares


def _least(column: Column) -> int:
    # A title may wrap at its spaces; a figure may not.
    lines = (line for cell in column.cells for line in cell.split("\n"))
    return max(map(len, (*lines, *column.title.split())), default=0)


def _total(widths: Iterable[int]) -> int:
    return sum(wide + GAP for wide in widths) - GAP


def _words(report: Report) -> list[str]:
    return [f"{name}: {sentence}" for name, sentences in explain(report).items() for sentence in sentences]


def _left_out(titles: list[str]) -> list[str]:
    if not titles:
        return []
    return [f"Not shown at this width: {', '.join(reversed(titles))}; the JSON and HTML reports have them."]
