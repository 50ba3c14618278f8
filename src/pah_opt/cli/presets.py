"""``pah-opt presets``: the named recipes that ship with the library and with plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pah_opt.cli._help import complete_presets, examples
from pah_opt.cli._output import json_option, print_json, print_table

if TYPE_CHECKING:
    from pah_opt.recipe import Recipe


@click.command(
    epilog=examples(
        "pah-opt presets",
        "pah-opt presets balanced > mine.yaml",
    )
)
@click.argument("name", required=False, shell_complete=complete_presets)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """Show the ready-made recipes, or NAME as YAML to start from."""
    from pah_opt.registry import default_registry

    registry = default_registry()
    if name is not None:
        preset = registry.preset(name)
        print_json(preset.to_data()) if as_json else click.echo(preset.to_yaml(), nl=False)
        return
    presets = list(registry.presets.values())
    if as_json:
        print_json([preset.to_data() for preset in presets])
    elif presets:
        print_table(("preset", "steps", "description"), [_row(preset) for preset in presets])
        click.echo("\nSave one to a file: pah-opt presets NAME > NAME.yaml")
    else:
        click.echo("no presets are installed")


def _row(preset: Recipe) -> tuple[str, str, str]:
    return preset.name, ", ".join(step.use for step in preset.steps), preset.description
