"""What commands print: JSON, or plain text that fits a terminal and a pipe."""

from __future__ import annotations

import contextlib
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
_STDOUT = f"{__name__}.stdout"
"""Where click's context keeps standard output while ``--json`` has it for itself."""


def json_option(function: F) -> F:
    """Add ``--json``, handed over as ``as_json``; with it, whatever else is printed goes to standard error."""
    return click.option(
        "--json", "as_json", is_flag=True, callback=_keep_for_json, help="Print JSON for other programs."
    )(function)


def _keep_for_json(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> bool:
    if wanted:
        # A plugin or a library that prints would make the output no JSON.
        ctx.meta[_STDOUT] = sys.stdout
        ctx.with_resource(contextlib.redirect_stdout(sys.stderr))
    return wanted


def print_json(data: Any) -> None:
    """Print JSON data, indented, on standard output."""
    import json

    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    click.echo(text, file=click.get_current_context().meta.get(_STDOUT))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their headers; cells wrap so that the table fits the terminal, or 80 columns in a pipe."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for position, header in enumerate(headers):
        table.add_column(header, overflow="fold", no_wrap=position == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    with console.capture() as rendered:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in rendered.get().splitlines()))


def print_text(text: str) -> None:
    """Print a paragraph, wrapped."""
    click.echo(textwrap.fill(text, _width(), break_on_hyphens=False, break_long_words=False))


def _width() -> int:
    return min(shutil.get_terminal_size((80, 24)).columns, 100)


def print_field(label: str, value: str, *, indent: int = 0) -> None:
    """Print ``label: value``, wrapped with the value's lines under one another; nothing for an empty value."""
    if value:
        head = " " * indent + (f"{label}:".ljust(12) if label else "")
        rest = " " * len(head)
        click.echo(textwrap.fill(value, _width(), initial_indent=head, subsequent_indent=rest, break_on_hyphens=False))
