"""What commands that run recipes share: where results go, how thoroughly to measure, what is shown at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pah_opt.cli._output import json_option

if TYPE_CHECKING:
    from pah_opt.report import Report
    from pah_opt.workflow import Outcome
    from pah_opt.workflow.ablation import Ablation

F = TypeVar("F", bound=Callable[..., Any])


def result_options(function: F) -> F:
    """Add ``--out``, ``--save-artifacts``, ``--full`` and ``--json``."""
    options = (
        click.option(
            "--out",
            default="out",
            show_default=True,
            metavar="FOLDER",
            type=click.Path(file_okay=False, path_type=Path),
            help="Where the report goes.",
        ),
        click.option("--save-artifacts", is_flag=True, help="Also save every optimized model, in FOLDER/artifacts."),
        click.option("--full", is_flag=True, help="Measure for figures to publish (minutes a model), not for a look."),
        json_option,
    )
    for option in reversed(options):
        function = option(function)
    return function


def show(outcome: Outcome, folder: Path, *, as_json: bool) -> None:
    """Print the comparison and where it was written.

    Raises:
        StepFailedError: the error of a recipe that failed while others ran, after everything is shown.
        GateFailedError: a gate of a recipe does not hold.
    """
    from pah_opt.report import require_gates

    click.echo(outcome.report.to_json() if as_json else outcome.report.to_text())
    click.echo(f"written to {folder}: report.json, report.md, report.csv, report.html, plots", err=True)
    for name, error in outcome.failures.items():
        click.echo(f"recipe {name} failed: {error}", err=True)
    if outcome.failures:
        raise next(iter(outcome.failures.values()))
    require_gates(outcome.report)


def show_ablation(ablation: Ablation, report: Report) -> None:
    """Print what each step of a recipe is worth, and which variants could not be run."""
    from pah_opt.cli._output import print_table, print_text
    from pah_opt.workflow.ablation import attribution_table

    headers, *rows = attribution_table(report, ablation.recipe)
    click.echo(f"What each step of {ablation.recipe.name} is worth:")
    print_table(headers, rows)
    for name, reason in ablation.refused.items():
        print_text(f"{name} cannot be run: {reason}")
    click.echo()
