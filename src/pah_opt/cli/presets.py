"""``pah-opt presets``: the named recipes that ship with the library and with plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pah_opt.cli._help import complete_presets, examples
from pah_opt.cli._output import json_option, print_json, print_table, print_text

if TYPE_CHECKING:
    from pah_opt.presets.measured import Row
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
    from pah_opt.presets.measured import measured_presets

    presets = list(registry.presets.values())
    found = measured_presets()
    measured = {preset.name: _measured(preset, found) for preset in presets}
    if as_json:
        print_json([preset.to_data() | {"measured": measured[preset.name]} for preset in presets])
    elif presets:
        rows = [_row(preset, measured[preset.name]) for preset in presets]
        print_table(("preset", "steps", "description", "measured"), rows)
        _show_conditions({name: row for name, row in measured.items() if row is not None})
        click.echo("\nSave one to a file: pah-opt presets NAME > NAME.yaml")
    else:
        click.echo("no presets are installed")


def _show(preset: Recipe) -> None:
    """Print a preset as YAML to start from, with its figures in a comment."""
    from pah_opt.presets.measured import conditions, in_words, measured_presets

    row = _measured(preset, measured_presets())
    click.echo(f"# Measured: {in_words(row)}" + (f" ({conditions(row)})" if row else ""))
    click.echo(preset.to_yaml(), nl=False)


def _show_conditions(rows: dict[str, Row]) -> None:
    from pah_opt.presets.measured import by_conditions

    for conditions, names in by_conditions(rows).items():
        click.echo()
        print_text(f"Measured ({', '.join(names)}): {conditions}.")


def _measured(preset: Recipe, found: dict[str, Row]) -> Row | None:
    """Return the row of a preset, None where this very recipe was not measured."""
    row = found.get(preset.name)
    return row if row and row["recipe_sha256"] == preset.sha256 else None


def _row(preset: Recipe, measured: Row | None) -> tuple[str, str, str, str]:
    from pah_opt.presets.measured import in_words

    steps = ", ".join(step.use for step in preset.steps)
    return preset.name, steps, preset.description, in_words(measured)
