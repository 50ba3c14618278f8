"""``pah-opt plugins``: what is loaded, what is broken and why, what was not chosen."""

from __future__ import annotations

import textwrap
from typing import Any

import click

from pah_opt.cli._help import examples
from pah_opt.cli._output import json_option, print_json, print_table


@click.command(
    epilog=examples(
        "pah-opt plugins",
        "pah-opt plugins --strict",
    )
)
@click.option("--strict", is_flag=True, help="Fail on the first broken plugin, for plugin authors.")
@json_option
def command(strict: bool, as_json: bool) -> None:
    """Show the plugins: loaded, left out with the reason, and not chosen."""
    from pah_opt.registry import default_registry, describe_plugins, strict_registry

    described = describe_plugins(strict_registry() if strict else default_registry())
    if as_json:
        print_json(described)
        return
    states = {"loaded": "loaded", "left_out": "left out", "not_chosen": "not chosen"}
    rows = [
        (plugin["name"], _from(plugin), state, _brings(plugin))
        for key, state in states.items()
        for plugin in described[key]
    ]
    print_table(("plugin", "from", "state", "brings"), rows)
    for plugin in described["left_out"]:
        click.echo(f"\n{plugin['error']}\n{textwrap.indent(plugin['traceback'].rstrip(), '  ')}")


def _from(plugin: dict[str, Any]) -> str:
    return f"{plugin['distribution']} {plugin['version']}" if plugin["distribution"] else "this process"


def _brings(plugin: dict[str, Any]) -> str:
    groups = ("strategies", "adapters", "metrics", "presets")
    return "; ".join(f"{group}: {', '.join(plugin[group])}" for group in groups if plugin.get(group))
