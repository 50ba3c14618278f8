"""``pah-opt search``: the best recipes under a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pah_opt.cli._help import examples
from pah_opt.cli._images import image_options, taken_choice
from pah_opt.cli._output import json_option, print_json, print_table, print_text
from pah_opt.cli._sources import source_options
from pah_opt.cli._status import INTERRUPTED

if TYPE_CHECKING:
    from pah_opt.search.result import SearchResult

WRITTEN = ("search.json", "search.html", "front", "pick.yaml", "pick")
"""What a search leaves in its folder, where there is something to write."""


@click.command(
    epilog=examples(
        "pah-opt search small --model digits --data digits --limit top1_drop_pp=1",
        "pah-opt search space.yaml --model ./my-vit --data ./my-images --minutes 30",
    )
)
@click.argument("space")
@source_options()
@click.option("--minimise", type=click.Choice(["latency", "size", "macs", "params", "energy"]),
              help="What the best recipe has least of; by default what the space says, or latency.")  # fmt: skip
@click.option("--limit", "limits", multiple=True, metavar="NAME=NUMBER",
              help="A limit, such as top1_drop_pp=1, file_mb=30, latency_ms=20, speedup_x=2, macs, params, energy_j; "
                   "also batch_size of the latency and confidence (0.9) of the drop; repeatable.")  # fmt: skip
@click.option("--trials", type=click.IntRange(1), default=100, show_default=True, help="Recipes to try at most.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Time of the search at most.")
@click.option("--trial-limit-s", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
              help="End a trial that takes longer; trials then run in a process of their own.")  # fmt: skip
@click.option("--sampler", type=click.Choice(["tpe", "nsga2", "random"]), default="tpe", show_default=True,
              help="What proposes recipes.")  # fmt: skip
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
              help="Where trials run: here, or on a Ray cluster.")  # fmt: skip
@click.option("--address", default="auto", show_default=True, metavar="HOST:PORT", help="Of the Ray cluster.")
@click.option("--device", default="cpu", show_default=True, help="Where the model runs, such as cuda.")
@image_options()
@click.option("--validation-images", type=click.IntRange(1), default=1000, show_default=True, metavar="N",
              help="Training images that decide between recipes.")  # fmt: skip
@click.option("--calibration-images", type=click.IntRange(1), default=128, show_default=True, metavar="N",
              help="Training images that calibrating steps observe.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random.")
@click.option("--out", type=click.Path(file_okay=False), default="search", show_default=True, metavar="FOLDER",
              help="Results and storage; a search that is there goes on.")  # fmt: skip
@json_option
def command(
    space: str, model: str, data: str, minimise: str | None, limits: tuple[str, ...], device: str,
    out: str, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Find the best recipes of SPACE (a YAML or JSON file, or a preset: small, fast-cpu, wide) within limits."""
    from pah_opt.progress import default_progress
    from pah_opt.search.budget import Budget
    from pah_opt.search.searching import search
    from pah_opt.search.space import as_space
    from pah_opt.workflow import Source

    read = as_space(space)
    given = _limits(limits) | ({} if minimise is None else {"minimise": minimise})
    budget = Budget.of(given, read.budget)  # wrong limits are found before anything is loaded
    source = Source.load(model, data, device=device, **taken_choice(settings))
    result = search(
        source.model, source.data, budget, space=read, out=out, progress=default_progress(), **settings
    )  # fmt: skip
    print_json(result.to_data()) if as_json else _show(result)
    written = [name for name in WRITTEN if (Path(out) / name).exists()]
    click.echo(f"written to {out}: {', '.join(written)}", err=True)
    _end(result)


def _limits(given: tuple[str, ...]) -> dict[str, float]:
    limits: dict[str, float] = {}
    for text in given:
        name, _equals, value = text.partition("=")
        name = name.strip()
        if name in limits:
            raise click.UsageError(f"--limit {name} is given twice, {limits[name]:g} and {value.strip()}; give it once")
        try:
            limits[name] = float(value) if name != "batch_size" else int(value)
        except ValueError as error:
            said = f"--limit {text!r} is not of the form NAME=NUMBER, such as top1_drop_pp=1"
            raise click.UsageError(said) from error
    return limits


def _show(result: SearchResult) -> None:
    from pah_opt.search.loop import describe

    rows = [(record.name, ", ".join(describe(record.figures))) for record in result.front]
    print_table(("front", f"on {result.validation_images} validation images"), rows)
    if result.why_no_pick:
        print_text(result.why_no_pick)
    for note in result.notes:
        print_text(note)
    if result.report is not None:
        click.echo("\nThe pick, on the test images:")
        click.echo(result.report.to_text(), nl=False)


def _end(result: SearchResult) -> None:
    """End with the status that says what came of it.

    Raises:
        GateFailedError: the pick misses a limit on the test images.
        SearchError: no trial keeps the limits, or the pick could not be measured.
    """
    from pah_opt.errors import SearchError
    from pah_opt.report import require_gates

    if result.interrupted:
        click.get_current_context().exit(INTERRUPTED)
    if result.report is not None:
        require_gates(result.report)
    elif result.pick is not None:
        raise SearchError(result.notes[-1])
    else:
        raise SearchError(result.why_no_pick or "there is no pick")
