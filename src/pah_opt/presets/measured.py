"""What the presets were measured to do: figures with their conditions, as ``benchmarks/presets.py`` wrote them.

The file is part of the package, so that ``pah-opt presets`` shows the same as the documentation. It may be missing.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Row: TypeAlias = "dict[str, Any]"
FILE = "measured.json"
NOT_MEASURED = "not measured"


def measured_presets(text: str | None = None) -> dict[str, Row]:
    """Return a row of figures by each measured preset's name; each has its conditions, as machines differ.

    Args:
        text: the JSON to read; by default the packaged file.
    """
    if text is None:
        packaged = files("pah_opt.presets") / FILE
        text = packaged.read_text(encoding="utf-8") if packaged.is_file() else '{"presets": {}}'
    found: dict[str, Row] = json.loads(text)["presets"]
    return found


def conditions(row: Row) -> str:
    """Return under what conditions a preset was measured, in a sentence without its full stop."""
    found = row["conditions"]
    first, last = found["batches"][0], found["batches"][-1]
    cpu = f"{found['cpu']} with {found['cpu_capability']}" if "cpu_capability" in found else found["cpu"]
    return (
        f"{found['model']} on {found['data']}, {found['train_images']:,} training and {found['calibration_images']} "
        f"calibration images, {cpu}, {found['threads']} threads, torch {found['torch']}; times in turns with "
        f"the dense model in fp32, faster at batch {first}, throughput at batch {last}"
    )


def by_conditions(rows: Mapping[str, Row]) -> dict[str, list[str]]:
    """Return the names of the presets that were measured under each of the conditions."""
    found: dict[str, list[str]] = {}
    for name, row in rows.items():
        found.setdefault(conditions(row), []).append(name)
    return found


def in_words(row: Row | None) -> str:
    """Return the figures of one preset in a line."""
    if row is None:
        return NOT_MEASURED
    return (
        f"{row['top1_delta_pp']:+.2f} points, {row['artifact_bytes'] / 1e6:.1f} MB, "
        f"{row['speedup_p50_x']:.2f}x the speed, {row['throughput_x']:.2f}x throughput, on {row['images']:,} images"
    )
