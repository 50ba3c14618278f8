"""``pah-opt plugin``: help for those who write plugins."""

from __future__ import annotations

import click

from pah_opt.cli._help import examples
from pah_opt.cli._output import json_option, print_json


@click.group(epilog=examples("pah-opt plugin new row-pruning"))
def command() -> None:
    """Start a plugin of your own."""


@command.command(
    "new", epilog=examples("pah-opt plugin new row-pruning", "cd row-pruning && pip install -e '.[dev]' && pytest")
)
@click.argument("name")
@click.option("--out", type=click.Path(file_okay=False), help="Folder to write; ./NAME by default. It must not exist.")
@json_option
def new(name: str, out: str | None, as_json: bool) -> None:
    """Write a complete package for the strategy NAME, such as row-pruning.

    It has the entry point, one strategy that works, tests of the whole contract, README, licence and CI.
    """
    from pah_opt.workflow.scaffold import write_plugin

    written = write_plugin(name, out)
    if as_json:
        print_json({"folder": str(written.folder), "files": list(written.files)})
        return
    click.echo(f"{written.folder}: {len(written.files)} files; next:")
    click.echo(f"  cd {written.folder} && pip install -e '.[dev]' && pytest")
