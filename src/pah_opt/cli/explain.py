"""``pah-opt explain``: what was changed, and why something did not get faster."""

from __future__ import annotations

import click

from pah_opt.cli._help import examples
from pah_opt.cli._output import json_option, print_json, print_table, print_text


@click.command(
    epilog=examples(
        "pah-opt explain out",
        "pah-opt explain out/report.json --model half-width",
    )
)
@click.argument("report", type=click.Path())
@click.option("--model", "models", multiple=True, metavar="NAME", help="Only this model; repeatable.")
@json_option
def command(report: str, models: tuple[str, ...], as_json: bool) -> None:
    """Say of each model in REPORT what changed block by block, and why it is no faster where it is not.

    REPORT is a report.json, or a folder that holds one.
    """
    from pah_opt.report import Report
    from pah_opt.report.explain import block_changes, explain

    read = Report.load(report)
    chosen = [read.model(name) for name in models] if models else list(read.candidates)
    words = explain(read)
    rows = {model.id: block_changes(model, read.baseline) for model in chosen}
    if as_json:
        print_json({name: {"words": words.get(name, ()), "blocks": blocks} for name, blocks in rows.items()})
        return
    for model in chosen:
        click.echo(f"{model.id}\n{'-' * len(model.id)}")
        for sentence in words.get(model.id, ()):
            print_text(sentence)
        if rows[model.id]:
            click.echo()
            print_table(("block", "heads", "MLP width", "stored as", "zeros"), rows[model.id])
        click.echo()
