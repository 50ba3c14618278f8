"""Pages that are made when the site is built: strategies and presets from the registry, and files of the project.

A page generated from the registry cannot fall behind the code, and needs no copy in the repository.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

from pah_opt.environment import Environment
from pah_opt.registry import default_registry
from pah_opt.registry.describe import describe_optimizer

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

    from pah_opt.recipe import Recipe

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


def strategies_page() -> str:
    """Return the reference of every strategy: what it does, its parameters, what it needs, its sources."""
    environment = Environment()
    described = [describe_optimizer(registered, environment) for registered in default_registry().optimizers.values()]
    head = "# Strategies\n\nMade from the registry; `pah-opt list NAME` shows the same.\n\n"
    index = "| strategy | goal | what it does |\n|---|---|---|\n" + "".join(
        f"| [{each['name']}](#{each['name']}) | {each['goal']} | {each['summary']} |\n" for each in described
    )
    return head + index + "".join(_strategy(each) for each in described)


def _strategy(described: dict[str, Any]) -> str:
    needs = described["needs"] or []
    parts = [f"\n## {described['name']}\n\n{described['summary']}\n"]
    if needs:
        parts.append(f"\nNeeds: {'; '.join(needs) if isinstance(needs, list) else needs}.\n")
    parts.append("\n| parameter | type | default | |\n|---|---|---|---|\n")
    parts += [_parameter(each) for each in described["parameters"]]
    if described["references"]:
        parts.append("\nSources: " + " · ".join(_linked(each) for each in described["references"]) + "\n")
    return "".join(parts)


def _parameter(each: dict[str, Any]) -> str:
    default = "required" if each["required"] else f"`{each['default']}`"
    return f"| `{each['name']}` | {_cell(each['type'])} | {default} | {_cell(each['description'])} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _linked(reference: str) -> str:
    return re.sub(r"(https?://\S+)", r"<\1>", reference)


def presets_page() -> str:
    """Return every preset as YAML."""
    head = (
        "# Presets\n\nNamed recipes that ship with the library: `pah-opt run NAME --model … --data …`, or start your "
        "own from one with `pah-opt presets NAME > mine.yaml`. Figures: [Choosing a recipe](choosing.md).\n"
    )
    measured = measured_presets(ROOT / "benchmarks" / "results" / "presets.json")
    return head + measured + "".join(_preset(each) for each in default_registry().presets.values())


def measured_presets(results: Path) -> str:
    """Return the figures of the presets that were measured, with the conditions; nothing where there are none."""
    if not results.exists():
        return ""
    found = json.loads(results.read_text(encoding="utf-8"))
    first, last = found["batches"][0], found["batches"][-1]
    text = (
        f"\nMeasured by `benchmarks/presets.py`: {found['model']} on {found['data']}, {found['calibration_images']} "
        f"calibration images, {found['cpu']}, {found['threads']} threads, torch {found['torch']}. Times in turns with "
        f"the dense model in fp32: *faster* at batch {first}, *throughput* at batch {last}. Presets that are not in "
        "the table were not measured yet.\n\n"
        "| preset | top-1 | change, points (95 %) | file, MB | faster | throughput | test images | made in |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    return text + "".join(_measured(name, row) for name, row in found["presets"].items())


def _measured(name: str, row: dict[str, Any]) -> str:
    low, high = row["top1_ci95_pp"]
    return (
        f"| `{name}` | {row['top1']:.2%} | {row['top1_delta_pp']:+.2f} ({low:+.2f} to {high:+.2f}) "
        f"| {row['artifact_bytes'] / 1e6:.1f} | {row['speedup_p50_x']:.2f}x | {row['throughput_x']:.2f}x "
        f"| {row['images']:,} | {row['made_s']:.0f} s |\n"
    )


def _preset(recipe: Recipe) -> str:
    return f"\n## {recipe.name}\n\n{recipe.description}\n\n```yaml\n{recipe.to_yaml()}```\n"
