"""``pah-opt gate``: hold a report against limits; the exit status is for CI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pah_opt.cli._output import json_option, print_json
from pah_opt.errors import GateFailedError, MeasurementError

if TYPE_CHECKING:
    from pah_opt.report import Report


def _show_names(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from pah_opt.cli._output import print_table
    from pah_opt.report.figures import FIGURES

    rows = [(name, figure.better, figure.summary) for name, figure in FIGURES.items()]
    print_table(("figure", "better", "what it is"), [*rows, ("extra.<name>", "", "a figure that a plugin adds")])
    ctx.exit()


@click.command
@click.argument("report", type=click.Path(dir_okay=False))
@click.option(
    "--max", "maxima", multiple=True, metavar="NAME=LIMIT", help="A figure must not be above this; repeatable."
)
@click.option(
    "--min", "minima", multiple=True, metavar="NAME=LIMIT", help="A figure must not be below this; repeatable."
)
@click.option("--model", "models", multiple=True, metavar="NAME",
              help="Which model must keep the limits; repeatable; every one but the baseline by default.")  # fmt: skip
@click.option("--junit", type=click.Path(dir_okay=False), metavar="FILE", help="Write JUnit XML there.")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_show_names,
              help="Show the figures that can be limited, and end.")  # fmt: skip
@json_option
def command(
    *, report: str, maxima: tuple[str, ...], minima: tuple[str, ...], models: tuple[str, ...], junit: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Hold REPORT against limits; without limits, against those of the recipes in it.

    The exit status is 0 when all are kept, 1 when one is not, 2 when the limits or the report cannot be used.
    """
    from pah_opt.report.files import write

    try:
        checked = _checked(report, minima, maxima, models)
    except MeasurementError as error:
        raise click.UsageError(str(error)) from error
    if junit is not None:
        write(junit, checked.to_junit())
    gates = [gate for model in checked.models for gate in model.vs_baseline.gates]
    if as_json:
        print_json([gate.model_dump(mode="json") for gate in gates])
    for gate in gates if not as_json else ():
        click.echo(f"{'passed' if gate.passed else 'FAILED'}  {gate.message}")
    failed = sum(not gate.passed for gate in gates)
    if failed:
        raise GateFailedError(f"{failed} of {len(gates)} gates failed")


def _checked(path: str, minima: tuple[str, ...], maxima: tuple[str, ...], models: tuple[str, ...]) -> Report:
    from pah_opt.report import Report, check_gates, read_limits, with_gates

    limits = read_limits(minima, maxima)
    report = Report.load(path)
    if limits:
        bare = report.without_gates()
        return with_gates(bare, check_gates(bare, limits, models=models or None))
    if not any(model.vs_baseline.gates for model in report.models):
        raise MeasurementError(f"{path} holds no gates of a recipe; give limits with --max or --min")
    return report
