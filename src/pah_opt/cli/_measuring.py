"""Options that commands which measure share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pah_opt.cli._help import Decorator, with_options
from pah_opt.cli._images import image_options
from pah_opt.cli._output import json_option, print_json
from pah_opt.cli._sources import weights_option
from pah_opt.cli._status import INTERRUPTED

if TYPE_CHECKING:
    from pah_opt.measure.settings import MeasureSettings
    from pah_opt.report import Report


class BatchSize(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click only
    """A number of images, or ``best``."""

    name = "N|best"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Read one."""
        if value == "best" or isinstance(value, int):
            return value  # type: ignore[no-any-return]
        try:
            size = int(value)
        except ValueError:
            size = 0
        if size < 1:
            self.fail(f"{value!r} is neither a number of images nor 'best'", param, ctx)
        return size


def thoroughness_option(*, quick: bool) -> Decorator:
    """Add ``--quick/--full``.

    Args:
        quick: the command's default.
    """
    return click.option(
        "--quick/--full", default=quick, show_default=True,
        help="A look (seconds for a small model), or figures to publish (minutes a model).",
    )  # fmt: skip


measuring_options = with_options(
    click.option("--data", metavar="ID_OR_PATH", help="Labelled test images: a hub id, a local folder or digits."),
    weights_option,
    click.option("--device", default="cpu", show_default=True, help="Where the models run, such as cuda."),
    image_options(train=False),
    click.option("--batch", "batches", multiple=True, type=BatchSize(), metavar="N|best",
                 help="Images in a pass; repeatable; 'best' searches for the highest throughput."),
    thoroughness_option(quick=False),
    click.option("--strong-baselines", is_flag=True, help="Also measure the first model in bf16 and compiled bf16."),
    click.option("--out", type=click.Path(file_okay=False), metavar="FOLDER",
                 help="Write report.json, .md, .csv, .html and .xml (gates) there."),
    json_option,
)  # fmt: skip
"""Adds the options of measuring."""


def settings_of(*, quick: bool, batches: tuple[Any, ...]) -> MeasureSettings:
    """Make settings from options."""
    from pah_opt.measure.settings import MeasureSettings

    changes = {"batch_sizes": batches} if batches else {}
    return MeasureSettings.quick(**changes) if quick else MeasureSettings.of(**changes)


def show_report(report: Report, out: str | None, *, as_json: bool) -> None:
    """Print a report, write its folder when asked, and end with 130 after ctrl-C."""
    from pah_opt.report.folder import write_report

    print_json(report.to_data()) if as_json else click.echo(report.to_text(), nl=False)
    if out is not None:
        click.echo(f"written to {out}: {', '.join(write_report(report, out))}", err=True)
    if not report.complete:
        click.get_current_context().exit(INTERRUPTED)
