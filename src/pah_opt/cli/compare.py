"""``pah-opt compare``: models side by side, or two reports made at different times."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pah_opt.cli._help import examples
from pah_opt.cli._images import require_images
from pah_opt.cli._measuring import measuring_options, settings_of, show_report
from pah_opt.cli._output import print_json, print_table, print_text

if TYPE_CHECKING:
    from pah_opt.report.difference import Change, Difference


@click.command(
    epilog=examples(
        "pah-opt compare ./my-vit int8=out/artifacts/int8 --data ./my-images",
        "pah-opt compare monday.json friday.json",
        "pah-opt compare out/monday out/friday",
    )
)
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL...")
@measuring_options
def command(
    *, models: tuple[str, ...], quick: bool, batches: tuple[Any, ...], strong_baselines: bool, out: str | None,
    as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Measure models side by side; the first is the baseline.

    Each is an artifact's folder, a folder in transformers' form, a hub id or digits. Given two report.json files, or
    folders that hold one and no model, say what changed between them and what is not comparable.

    Under accelerate launch, all processes share the images; the main one times and writes.
    """
    if all(map(_is_report, models)):
        _compare_reports(models, as_json=as_json)
        return
    require_images(options["data"])
    from pah_opt.workflow import is_main, main_progress
    from pah_opt.workflow.measuring import measure_sources

    report = measure_sources(
        _named(models), settings=settings_of(quick=quick, batches=batches), baselines=strong_baselines,
        shared=True, progress=main_progress(), **options,
    )  # fmt: skip
    if is_main():
        show_report(report, out, as_json=as_json)


def _is_report(given: str) -> bool:
    from pah_opt.artifact.files import DESCRIPTION, REPORT

    folder = Path(given)
    # A model may bring its report.
    is_model = any((folder / name).is_file() for name in (DESCRIPTION, "config.json"))
    return given.endswith(".json") or ((folder / REPORT).is_file() and not is_model)


def _named(models: tuple[str, ...]) -> dict[str, str]:
    """Read ``NAME=MODEL``; without a name the last part of the path is the name."""
    named: dict[str, str] = {}
    for text in models:
        name, equals, source = text.partition("=")
        name, source = (name, source) if equals and not Path(text).exists() else (Path(text).name or text, text)
        if not name:
            raise click.UsageError(f"{text!r} has no name before the sign; write NAME={source}")
        if name in named:
            raise click.UsageError(f"two models are called {name!r}; write NAME={source} to tell them apart")
        named[name] = source
    return named


def _compare_reports(paths: tuple[str, ...], *, as_json: bool) -> None:
    from dataclasses import asdict

    from pah_opt.report import Report
    from pah_opt.report.difference import difference

    if len(paths) != 2:
        raise click.UsageError(f"two reports can be compared; {len(paths)} were given")
    found = difference(*(Report.load(path) for path in paths))
    if as_json:
        print_json(asdict(found))
    else:
        _show(found)


def _show(found: Difference) -> None:
    for label, names in (("only in the first", found.only_before), ("only in the second", found.only_after)):
        if names:
            print_text(f"{label}: {', '.join(names)}")
    for condition in found.conditions:
        print_text(f"differs: {condition}")
    for group, reason in found.not_comparable.items():
        print_text(f"not comparable: {group} ({reason})")
    moved = [change for change in found.changes if change.before != change.after]
    if moved:
        print_table(("model", "figure", "before", "after", ""), [_row(change) for change in moved])
    elif found.changes:
        click.echo("every figure that can be compared is the same")
    else:
        click.echo("nothing in these reports can be compared")


def _row(change: Change) -> tuple[str, str, str, str, str]:
    better = (change.after < change.before) == (change.better == "lower")
    verdict = "" if change.better == "neither" else "better" if better else "worse"
    moved = f"{_moved(change)} {verdict}".strip()
    return change.model, change.figure, f"{change.before:.6g}", f"{change.after:.6g}", moved


def _moved(change: Change) -> str:
    """Write by how much: in points where the figure is one of points or percent, else as a share of what it was."""
    from pah_opt.report.figures import FIGURES

    if FIGURES[change.figure].unit in ("points", "percent"):
        return f"{change.after - change.before:+.2f} points"
    return "" if change.factor is None else f"{100 * (change.factor - 1):+.1f} %"
