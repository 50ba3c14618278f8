"""``pah-opt inspect``: what a saved artifact is and how it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pah_opt.cli._help import examples
from pah_opt.cli._output import json_option, print_field, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from pah_opt.artifact.inspecting import Inspection


@click.command(
    epilog=examples(
        "pah-opt inspect out/artifacts/int8",
        "pah-opt inspect out/artifacts/int8 --verify --json",
    )
)
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--verify", is_flag=True, help="Also compare the checksum of every file with its content.")
@json_option
def command(folder: str, verify: bool, as_json: bool) -> None:
    """Show what a saved artifact is: recipe, steps, figures, files. Nothing in it is run."""
    from pah_opt.artifact.inspecting import inspect

    found = inspect(folder, verify=verify)
    if as_json:
        print_json(found.to_data())
        return
    _print_origin(found)
    click.echo()
    print_table(("step", "parameters", "MACs", "MB in memory", "asked"), _step_rows(found))
    click.echo()
    rows = [(name, f"{record.bytes:,}") for name, record in found.manifest.files.items()]
    print_table(("file", "bytes"), [*rows, ("together", f"{found.total_bytes:,}")])


def _print_origin(found: Inspection) -> None:
    described = found.description
    versions = described.environment.get("versions")
    print_field("recipe", described.recipe.name)
    print_field("what for", described.recipe.description)
    print_field("made from", f"{described.source or 'a model that was not named'} ({described.weights_origin} weights)")
    print_field("family", described.adapter)
    print_field("state", ", ".join(described.tags))
    print_field("classes", ", ".join(described.class_names))
    if isinstance(versions, dict):
        print_field("versions", ", ".join(f"{name} {version}" for name, version in versions.items()))
    print_field(
        "checksums", "all compared: good" if found.verified else "of the small files compared; --verify for all"
    )


def _step_rows(found: Inspection) -> Sequence[Sequence[str]]:
    from pah_opt.report.numbers import megabytes, scaled

    steps = found.description.steps
    figures: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]
    figures = [("before", steps[0].before, {}) if steps else ("(no step)", {}, {})]
    figures += [(f"{number}. {step.use}", step.after, step.config) for number, step in enumerate(steps, 1)]
    rows = []
    for name, after, config in figures:
        params, macs, size = (_number(after.get(key)) for key in ("params", "macs", "weights_bytes"))
        asked = ", ".join(f"{key} {value}" for key, value in config.items() if value is not None)
        rows.append((name, scaled(params), scaled(macs), megabytes(size), asked))
    return rows


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
