"""``pah-opt list``: the strategies, what each takes and needs, and whether it can run here."""

from __future__ import annotations

import json
from typing import Any

import click

from pah_opt.cli._help import complete_strategies, examples
from pah_opt.cli._output import json_option, print_field, print_json, print_table, print_text


@click.command(
    epilog=examples(
        "pah-opt list",
        "pah-opt list structured-pruning",
    )
)
@click.argument("name", required=False, shell_complete=complete_strategies)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """Show the strategies that recipes can use, or everything about NAME."""
    from pah_opt.environment import Environment
    from pah_opt.registry import default_registry, describe_optimizer

    registry, environment = default_registry(), Environment()
    if name is not None:
        described = describe_optimizer(registry.get(name), environment)
        print_json(described) if as_json else _show(described)
        return
    everything = [describe_optimizer(registered, environment) for registered in registry.optimizers.values()]
    print_json(everything) if as_json else _show_all(everything)


def _show_all(everything: list[dict[str, Any]]) -> None:
    if not everything:
        click.echo("no strategies are installed; see: pah-opt plugins")
        return
    rows = [(d["name"], d["goal"], "yes" if d["available"] else "no", d["summary"]) for d in everything]
    print_table(("strategy", "for", "runs here", "summary"), rows)
    for described in everything:
        for obstacle in described["obstacles"]:
            click.echo()
            print_text(f"{described['name']} cannot run here: {obstacle['reason']}; {obstacle['remedy']}")
    click.echo("\nParameters and needs of one: pah-opt list NAME")


def _show(described: dict[str, Any]) -> None:
    print_text(f"{described['name']}: {described['summary']}")
    click.echo()
    if described["description"] not in ("", described["summary"]):
        for paragraph in described["description"].split("\n\n"):
            print_text(paragraph)
            click.echo()
    print_field("for", described["goal"])
    print_field("plugin", " ".join(filter(None, (described["plugin"], _from(described)))))
    blocked = "; ".join(f"{obstacle['reason']}; {obstacle['remedy']}" for obstacle in described["obstacles"])
    print_field("runs here", f"no: {blocked}" if blocked else "yes")
    print_field("needs", _default_words(described["needs"]) or "only the model")
    print_field("promises", _default_words(described["promises"]))
    for kind, tags in (described["tags"] or {}).items():
        print_field(kind, ", ".join(tags))
    print_field("libraries", ", ".join(_library(backend) for backend in described["backends"]))
    for reference in described["references"]:
        print_field("reference", reference)
    click.echo("\nParameters:" if described["parameters"] else "\nIt takes no parameters.")
    for parameter in described["parameters"]:
        _show_parameter(parameter)


def _default_words(words: list[str] | None) -> str:
    return "depends on its parameters" if words is None else ", ".join(words)


def _from(described: dict[str, Any]) -> str:
    return f"({described['distribution']} {described['version']})" if described["distribution"] else ""


def _library(backend: dict[str, Any]) -> str:
    found = backend["installed"]
    return f"{backend['distribution']} {backend['versions']} ({found or 'not'} installed)".replace("  ", " ")


def _show_parameter(parameter: dict[str, Any]) -> None:
    default = "required" if parameter["required"] else f"default {json.dumps(parameter['default'])}"
    click.echo(f"\n  {parameter['name']}")
    for text in (f"{parameter['type']}; {default}", parameter["description"]):
        print_field("", text, indent=4)
