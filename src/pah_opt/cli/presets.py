"""``pah-opt presets``: the named recipes that ship with the library and with plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pah_opt.cli._help import complete_presets, examples
from pah_opt.cli._output import json_option, print_json, print_table, print_text

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
        print_json(preset.to_data()) if as_json else _show(preset)
        return
    from pah_opt.presets.measured import conditions, measured_presets

    presets, measured = list(registry.presets.values()), measured_presets()
    if as_json:
        print_json([preset.to_data() | {"measured": _measured(preset, measured)} for preset in presets])
    elif presets:
        print_table(("preset", "steps", "description", "measured"), [_row(preset, measured) for preset in presets])
        if measured["presets"]:
            click.echo()
            print_text(f"Measured: {conditions(measured)}.")
        click.echo("\nSave one to a file: pah-opt presets NAME > NAME.yaml")
    else:
        click.echo("no presets are installed")


def _show(preset: Recipe) -> None:
    """Print a preset as YAML to start from, with its figures in a comment."""
    from pah_opt.presets.measured import conditions, in_words, measured_presets

    measured = measured_presets()
    row = _measured(preset, measured)
    click.echo(f"# Measured: {in_words(row)}" + (f" ({conditions(measured)})" if row else ""))
    click.echo(preset.to_yaml(), nl=False)


def _measured(preset: Recipe, measured: dict[str, Any]) -> dict[str, Any] | None:
    """Return the row of a preset, None where this very recipe was not measured."""
    row: dict[str, Any] | None = measured["presets"].get(preset.name)
    return row if row and row["recipe_sha256"] == preset.sha256 else None


def _row(preset: Recipe, measured: dict[str, Any]) -> tuple[str, str, str, str]:
    from pah_opt.presets.measured import in_words

    steps = ", ".join(step.use for step in preset.steps)
    return preset.name, steps, preset.description, in_words(_measured(preset, measured))
