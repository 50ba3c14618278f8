"""``pah-opt gate``: hold a report against limits; the exit status is for CI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pah_opt.cli._help import examples
from pah_opt.cli._output import json_option, print_json
from pah_opt.errors import GateFailedError, ReportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.measure.schema import GateResult
    from pah_opt.report import Report


def _show_figures(*, as_json: bool) -> None:
    from pah_opt.cli._output import print_table
    from pah_opt.report.figures import describe_figures

    described = describe_figures()
    if as_json:
        print_json(described)
        return
    rows = [(each["name"], each["better"], each["summary"]) for each in described]
    print_table(("figure", "better", "what it is"), [*rows, ("extra.<name>", "", "a figure that a plugin adds")])


@click.command(
    epilog=examples(
        "pah-opt gate --list",
        "pah-opt gate out/report.json --max top1_drop_pp=1 --min throughput_x=2",
        "pah-opt gate out/report.json --junit gates.xml",
    )
)
@click.argument("report", required=False, type=click.Path())
@click.option(
    "--max", "maxima", multiple=True, metavar="NAME=LIMIT", help="A figure must not be above this; repeatable."
)
@click.option(
    "--min", "minima", multiple=True, metavar="NAME=LIMIT", help="A figure must not be below this; repeatable."
)
@click.option("--model", "models", multiple=True, metavar="NAME",
              help="Which model must keep the limits; repeatable; every one but the baseline by default.")  # fmt: skip
@click.option("--junit", type=click.Path(dir_okay=False), metavar="FILE", help="Write JUnit XML there.")
@click.option("--list", "only_list", is_flag=True, help="Show the figures that can be limited, and end.")
@json_option
def command(
    *, report: str | None, maxima: tuple[str, ...], minima: tuple[str, ...], models: tuple[str, ...], junit: str | None,
    only_list: bool, as_json: bool,
) -> None:  # fmt: skip
    """Hold REPORT, a report.json or a folder that holds one, against limits; without, against its recipes' own.

    The exit status is 0 when all are kept, 1 when one is not, 2 when the limits or the report cannot be used or no
    limit could be checked.
    """
    if only_list:
        _show_figures(as_json=as_json)
        return
    if report is None:
        raise click.UsageError("Missing argument 'REPORT'.")
    from pah_opt.report.files import write

    checked = _checked(report, minima, maxima, models)
    if junit is not None:
        write(junit, checked.to_junit())
    gates = [gate for model in checked.models for gate in model.vs_baseline.gates]
    if as_json:
        print_json([gate.model_dump(mode="json") for gate in gates])
    for gate in gates if not as_json else ():
        click.echo(f"{gate.shown}  {gate.message}")
    _require(gates)


def _require(gates: Sequence[GateResult]) -> None:
    """End with the status that says what became of them.

    Raises:
        GateFailedError: one failed.
        ReportError: not one could be checked.
    """
    verdicts = [gate.verdict for gate in gates]
    if failed := verdicts.count("failed"):
        raise GateFailedError(f"{failed} of {len(gates) - verdicts.count('not checked')} gates failed")
    if "passed" not in verdicts:
        raise ReportError(
            "no gate was checked: all are against a baseline, and the model was measured without one; measure it "
            "beside its dense model (pah-opt compare DENSE MODEL), or give absolute limits with --max or --min"
        )


def _checked(path: str, minima: tuple[str, ...], maxima: tuple[str, ...], models: tuple[str, ...]) -> Report:
    from pah_opt.report import Report, check_gates, read_limits, with_gates

    limits = read_limits(minima, maxima)
    report = Report.load(path)
    if limits:
        bare = report.without_gates()
        return with_gates(bare, check_gates(bare, limits, models=models or None))
    if models:
        report = report.model_copy(update={"models": tuple(report.model(name) for name in dict.fromkeys(models))})
    if not any(model.vs_baseline.gates for model in report.models):
        whose = f"models {', '.join(models)} of {path} hold" if models else f"{path} holds"
        raise ReportError(f"{whose} no gates of a recipe; give limits with --max or --min")
    return report
