"""What is made when the site is built: pages from the registry and files of the project, and parts of other pages.

What is generated cannot fall behind the code, and needs no copy in the repository. A handwritten page says where a part
goes by a mark, such as ``<!-- generated: commands -->``.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from mkdocs.structure.files import File

from pah_opt.cli import main
from pah_opt.cli._status import MEANINGS
from pah_opt.environment import Environment
from pah_opt.presets.measured import Row, by_conditions, measured_presets
from pah_opt.recipe import Gate, Recipe, Step
from pah_opt.registry import default_registry
from pah_opt.registry.describe import describe_optimizer
from pah_opt.registry.parameter_rows import describe_parameters
from pah_opt.report.figures import describe_figures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

UNKNOWN = "depends on its parameters"
ROOT = Path(__file__).parents[1]
PROJECT_FILES = {
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
    "serving.md": "examples/serving/README.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages; called by mkdocs."""
    pages = {"strategies.md": strategies_page(), "presets.md": presets_page()}
    pages |= {page: within_docs((ROOT / name).read_text(encoding="utf-8")) for page, name in PROJECT_FILES.items()}
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def within_docs(text: str) -> str:
    """Point links that are relative to the project's root at the site's pages."""
    return re.sub(r"\]\(docs/([a-z-]+\.md)", r"](\1", text)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Replace the marks of a handwritten page by what the code says; called by mkdocs."""
    return filled(markdown)


def filled(markdown: str) -> str:
    """Replace each ``<!-- generated: NAME -->``."""
    return re.sub(r"<!-- generated: ([a-z-]+) -->", lambda mark: MARKS[mark[1]](), markdown)


def commands() -> str:
    """Return the reference of every command: usage, what it does, options, examples."""
    context = click.Context(main, info_name="pah-opt")
    own = _options(main, context)
    names = main.list_commands(context)
    return f"Options before the command's name:\n\n{own}" + "".join(
        _command(main.get_command(context, name), name, context) for name in names
    )


def _command(command: click.Command | None, name: str, parent: click.Context) -> str:
    assert command is not None  # noqa: S101  # its name came from the group
    context = click.Context(command, info_name=name, parent=parent)
    inner = command.commands if isinstance(command, click.Group) else {}
    what = re.sub(r"^(#.*)$", r"`\1`", inspect.cleandoc(command.help or ""), flags=re.MULTILINE)  # no heading
    usage = command.get_usage(context).removeprefix("Usage: ")
    examples = (command.epilog or "").partition("Examples:\n")[2]
    return (
        f"\n## {context.command_path}\n\n{_text(what)}\n"
        f"\n```text\n{usage}\n```\n\n{_options(command, context)}"
        f"\n```console\n{inspect.cleandoc(examples)}\n```\n"
        + "".join(_command(each, inner_name, context) for inner_name, each in inner.items())
    )


def _options(command: click.Command, context: click.Context) -> str:
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    records = [each.get_help_record(context) for each in options]
    rows = [f"| `{record[0]}` | {_text(_cell(record[1]))} |\n" for record in records if record is not None]
    return "".join(("| option | |\n|---|---|\n", *rows))


def exit_statuses() -> str:
    """Return the exit statuses in words."""
    return "| status | |\n|---|---|\n" + "".join(f"| {status} | {words} |\n" for status, words in MEANINGS.items())


def figures_table() -> str:
    """Return every figure that gates can name."""
    head = "| figure | unit | better | what it is | how to read it |\n|---|---|---|---|---|\n"
    cells = [{key: _cell(text) for key, text in each.items()} for each in describe_figures()]
    return head + "".join(
        f"| `{each['name']}` | {each['unit']} | {each['better']} | {each['summary']} | {each['reading']} |\n"
        for each in cells
    )


def recipe_keys() -> str:
    """Return the keys of a recipe, of its steps and of its gates."""
    kinds = ((Recipe, "A recipe"), (Step, "Each of its `steps`"), (Gate, "Each of its `gates`"))
    return "".join(f"\n{title}:\n\n{_parameters(list(describe_parameters(kind)))}" for kind, title in kinds)


MARKS = {
    "commands": commands, "exit-statuses": exit_statuses, "figures": figures_table, "recipe-keys": recipe_keys,
}  # fmt: skip
"""What the marks of handwritten pages stand for."""


def strategies_page() -> str:
    """Return the reference of every strategy: what it does, its parameters, what it needs, its sources."""
    environment = Environment()
    described = [describe_optimizer(registered, environment) for registered in default_registry().optimizers.values()]
    head = (
        "# Strategies\n\nMade from the registry; `pah-opt list NAME` shows the same. Needs, promises and tags are "
        "those of the default parameters. A *promise* is verified after the step; a *tag* is a state of the model by "
        "which [orders that cannot work](recipes.md#order) are refused.\n\n"
    )
    index = "| strategy | goal | what it does |\n|---|---|---|\n" + "".join(
        f"| [{each['name']}](#{each['name']}) | {each['goal']} | {each['summary']} |\n" for each in described
    )
    return head + index + "".join(_strategy(each) for each in described)


def _strategy(described: dict[str, Any]) -> str:
    parts = [f"\n## {described['name']}\n\n{described['summary']}\n"]
    if described["description"] not in ("", described["summary"]):
        parts.append(f"\n{_text(described['description'])}\n")
    parts.append("\n" + "".join(f"- {label}: {words}.\n" for label, words in _declared(described)))
    parts.append("\n" + _parameters(described["parameters"]))
    if described["references"]:
        parts.append("\nSources: " + " · ".join(_linked(each) for each in described["references"]) + "\n")
    return "".join(parts)


def _declared(described: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a strategy says of itself with its default parameters, each with a label."""
    needs, promises, tags = described["needs"], described["promises"], described["tags"]
    yield "Goal", described["goal"]
    yield "Needs", UNKNOWN if needs is None else "; ".join(needs) or "only the model"
    yield "Promises", UNKNOWN if promises is None else "; ".join(promises) or "nothing that can be verified"
    labels = {
        "requires": "Tags before", "excludes": "Tags not before", "provides": "Tags it adds",
        "removes": "Tags it takes away",
    }  # fmt: skip
    for kind, label in labels.items() if tags else ():
        yield label, ", ".join(f"`{tag}`" for tag in tags[kind]) or "none"


def _parameters(described: list[dict[str, Any]]) -> str:
    return "| parameter | type | default | |\n|---|---|---|---|\n" + "".join(_parameter(each) for each in described)


def _parameter(each: dict[str, Any]) -> str:
    nested = isinstance(each["default"], dict) and each["default"]
    default = "required" if each["required"] else "as below" if nested else f"`{json.dumps(each['default'])}`"
    return f"| `{each['name']}` | {_cell(each['type'])} | {default} | {_text(_cell(each['description']))} |\n"


def _text(text: str) -> str:
    """Turn the roles and literals of docstrings into Markdown."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")


def _cell(text: str) -> str:
    """Escape what Markdown would read as markup in a cell, but for code in backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _plain(part) for part in parts)


def _plain(text: str) -> str:
    return re.sub(r"([|*\[\]])", r"\\\1", text).replace("<", "&lt;")


def _linked(reference: str) -> str:
    return re.sub(r"(https?://\S+)", r"<\1>", reference)


def presets_page() -> str:
    """Return every preset as YAML."""
    head = (
        "# Presets\n\nNamed recipes that ship with the library: `pah-opt run NAME --model … --data …`, or start your "
        "own from one with `pah-opt presets NAME > mine.yaml`. Figures: [Choosing a recipe](choosing.md).\n"
    )
    return (
        head
        + measured_table(measured_presets())
        + "".join(_preset(each) for each in default_registry().presets.values())
    )


def measured_table(rows: dict[str, Row]) -> str:
    """Return the figures of the presets that were measured, with the conditions."""
    if not rows:
        return "\nTheir figures are not measured yet.\n"
    conditions = "".join(
        f"- {', '.join(f'`{name}`' for name in names)}: {text}.\n" for text, names in by_conditions(rows).items()
    )
    text = (
        "\nMeasured by `benchmarks/presets.py`; presets that are not in the table were not measured yet. "
        "Conditions:\n\n"
        f"{conditions}\n"
        "| preset | top-1 | change, points (95 %) | file, MB | faster | throughput | test images | made in |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    return text + "".join(_measured(name, row) for name, row in rows.items())


def _measured(name: str, row: Row) -> str:
    low, high = row["top1_ci95_pp"]
    return (
        f"| `{name}` | {row['top1']:.2%} | {row['top1_delta_pp']:+.2f} ({low:+.2f} to {high:+.2f}) "
        f"| {row['artifact_bytes'] / 1e6:.1f} | {row['speedup_p50_x']:.2f}x | {row['throughput_x']:.2f}x "
        f"| {row['images']:,} | {row['made_s']:.0f} s |\n"
    )


def _preset(recipe: Recipe) -> str:
    return f"\n## {recipe.name}\n\n{recipe.description}\n\n```yaml\n{recipe.to_yaml()}```\n"
