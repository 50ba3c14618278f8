"""The model card: what an artifact is, how it was made, its figures and its limits; in the hub's form."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pah_opt.artifact import files
from pah_opt.artifact.hub import is_hub_name
from pah_opt.report.markdown import table, to_markdown
from pah_opt.report.numbers import megabytes, scaled
from pah_opt.report.schema import Report
from pah_opt.storage.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pah_opt.artifact.description import Description, StepDescription
    from pah_opt.artifact.inspecting import Inspection
    from pah_opt.artifact.manifest import Manifest

LIMITS = {
    "weights:sparse": "Zeros in the weights make the file smaller; dense kernels do not run faster for them.",
    "compiled": "The forward pass is compiled again after loading: the first inference takes long.",
    "dtype:fp16": "Half-precision weights: run it on a device that computes in float16.",
}
"""What a user must know, by state tag."""


def model_card(
    description: Description, manifest: Manifest, report: Mapping[str, Any] | None, *, license_id: str | None = None
) -> str:
    """Return the text of ``README.md``.

    Args:
        description: what the artifact is.
        manifest: its files.
        report: a report as JSON data, to be shown.
        license_id: the hub's name of the base model's licence, where it is known.
    """
    parts = [
        *_front_matter(description, license_id), "", f"# {description.recipe.name}", "", *_what(description), "",
        *_usage(), "", *_steps(description), *_files(manifest), *_limits(description, license_id), *_report(report),
    ]  # fmt: skip
    return "\n".join(parts).rstrip() + "\n"


def write_card(found: Inspection, license_id: str | None) -> None:
    """Write the card of a saved artifact again, now that the licence is known; one that was edited stays as it is.

    Raises:
        OSError: it could not be written.
    """
    report = None
    if files.REPORT in found.manifest.files:
        report = json.loads((found.folder / files.REPORT).read_bytes())
    path = found.folder / files.CARD
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    stated = re.search(r'^license: "(.*)"$', text, re.MULTILINE)
    earlier = stated[1] if stated and stated[1] != "other" else None
    if text and text != model_card(found.description, found.manifest, report, license_id=earlier):
        return
    write_text(path, model_card(found.description, found.manifest, report, license_id=license_id))


def _front_matter(description: Description, license_id: str | None) -> Iterator[str]:
    """Yield what the hub reads; values are JSON, which is YAML too."""
    yield "---"
    yield "library_name: pah-opt"
    yield "pipeline_tag: image-classification"
    yield f"license: {json.dumps(license_id or 'other')}"
    if description.source and is_hub_name(description.source):
        yield f"base_model: {json.dumps(description.source)}"
    yield f"tags: {json.dumps(['vision-transformer', 'pah-opt', *dict.fromkeys(s.use for s in description.steps)])}"
    yield "---"


def _what(description: Description) -> Iterator[str]:
    base = f"`{description.source}`" if description.source else "a model that was not named"
    steps = ", ".join(step.use for step in description.steps) or "no step"
    yield f"A Vision Transformer made by pah-opt from {base}: {steps}."
    if description.recipe.description:
        yield ""
        yield description.recipe.description
    if description.weights_origin == "random":
        yield ""
        yield "**The weights are random:** it shows size and speed, its predictions mean nothing."


def _usage() -> list[str]:
    return [
        "```python", "import pah_opt", "", 'artifact = pah_opt.load("path/or/hub-name", verify=True)',
        "logits = artifact.model(pixel_values)", "```",
    ]  # fmt: skip


def _steps(description: Description) -> list[str]:
    recipe = json.dumps(description.recipe.to_data(), indent=2)
    rows = [_row(number, step) for number, step in enumerate(description.steps, 1)]
    if not rows:
        return ["## Recipe", "", "```json", recipe, "```", ""]
    first = description.steps[0].before
    before = ("before", scaled(_number(first, "params")), scaled(_number(first, "macs")), _mb(first), "")
    return [
        "## Recipe", "", "```json", recipe, "```", "",
        *table(("after", "parameters", "MACs", "MB in memory", "achieved"), [before, *rows]),
    ]  # fmt: skip


def _row(number: int, step: StepDescription) -> tuple[str, ...]:
    achieved = ", ".join(f"{name} {_short(value)}" for name, value in step.achieved.items() if _short(value))
    figures = (scaled(_number(step.after, "params")), scaled(_number(step.after, "macs")), _mb(step.after))
    return (f"{number}. {step.use}", *figures, achieved)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value) if isinstance(value, (int, str)) else ""


def _number(figures: Mapping[str, Any], name: str) -> float | None:
    value = figures.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def _mb(figures: Mapping[str, Any]) -> str:
    return megabytes(_number(figures, "weights_bytes"))


def _files(manifest: Manifest) -> list[str]:
    rows = [(name, f"{record.bytes:,}") for name, record in manifest.files.items()]
    return ["## Files", "", *table(("file", "bytes"), rows), f"Checksums are in `{files.MANIFEST}`.", ""]


def _limits(description: Description, license_id: str | None) -> list[str]:
    found = [text for tag, text in LIMITS.items() if tag in description.tags]
    if license_id is None:
        base = description.source or "the base model"
        found.append(f"The licence of {base} applies; look it up before you use or share this model.")
    return ["## Limits", "", *(f"- {text}" for text in found), ""] if found else []


def _report(report: Mapping[str, Any] | None) -> list[str]:
    """Return the measurements; a report of another version is kept in its file and not shown."""
    if report is None:
        return []
    try:
        text = to_markdown(Report.model_validate_json(json.dumps(report)))
    except ValidationError:
        return []
    return [f"#{line}" if line.startswith("#") else line for line in text.splitlines()]
