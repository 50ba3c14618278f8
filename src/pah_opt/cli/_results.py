"""What commands that run recipes share: where results go, how thoroughly to measure, what is shown at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pah_opt.cli._help import with_options
from pah_opt.cli._measuring import thoroughness_option
from pah_opt.cli._output import json_option, print_json
from pah_opt.cli._status import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.report import Report
    from pah_opt.workflow import Outcome
    from pah_opt.workflow.ablation import Ablation

result_options = with_options(
    click.option(
        "--out",
        default="out",
        show_default=True,
        metavar="FOLDER",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where the report goes.",
    ),
    click.option("--save-artifacts", is_flag=True, help="Also save every optimized model, in FOLDER/artifacts."),
    thoroughness_option(quick=True),
    json_option,
)
"""Adds ``--out``, ``--save-artifacts``, ``--quick/--full`` and ``--json``."""


def show(outcome: Outcome, *, as_json: bool, ablations: Sequence[Ablation] = ()) -> None:
    """Print the comparison, and what each step of the ablated recipes is worth."""
    if as_json:
        print_json(_as_data(outcome.report, ablations))
        return
    for ablation in ablations:
        _show_ablation(ablation, outcome.report)
    click.echo(outcome.report.to_text())


def end(outcome: Outcome, folder: Path) -> None:
    """Say where everything was written, and end as the work went: with 130 where ctrl-C left the report incomplete.

    Raises:
        StepFailedError: the error of a recipe that failed while others ran.
        GateFailedError: a gate of a recipe does not hold.
    """
    from pah_opt.report import require_gates

    click.echo(f"written to {folder}: {', '.join(outcome.files)}", err=True)
    if outcome.earlier:
        click.echo(f"left there by an earlier run, not made by this one: {', '.join(outcome.earlier)}", err=True)
    for name, error in outcome.failures.items():
        click.echo(f"recipe {name} failed: {error}", err=True)
    if not outcome.report.complete:
        click.get_current_context().exit(INTERRUPTED)
    if outcome.failures:
        raise next(iter(outcome.failures.values()))
    require_gates(outcome.report)


def _as_data(report: Report, ablations: Sequence[Ablation]) -> dict[str, Any]:
    """Return the report, and beside it, where there are any, the ablations."""
    from pah_opt.workflow.ablation import attribution

    if not ablations:
        return report.to_data()
    credited = [
        {
            "recipe": ablation.recipe.name,
            "steps": [credit._asdict() for credit in attribution(report, ablation.recipe)],
            "refused": ablation.refused,
        }
        for ablation in ablations
    ]
    return {"report": report.to_data(), "ablations": credited}


def _show_ablation(ablation: Ablation, report: Report) -> None:
    """Print what each step of a recipe is worth, and which variants could not be run."""
    from pah_opt.cli._output import print_table, print_text
    from pah_opt.workflow.ablation import attribution_table

    headers, *rows = attribution_table(report, ablation.recipe)
    click.echo(f"What each step of {ablation.recipe.name} is worth:")
    print_table(headers, rows)
    for name, reason in ablation.refused.items():
        print_text(f"{name} cannot be run: {reason}")
    click.echo()
