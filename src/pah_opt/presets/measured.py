"""What the presets were measured to do: figures with their conditions, as ``benchmarks/presets.py`` wrote them.

The file is part of the package, so that ``pah-opt presets`` shows the same as the documentation. It may be missing.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

FILE = "measured.json"
NOT_MEASURED = "not measured"


def measured_presets(text: str | None = None) -> dict[str, Any]:
    """Return the conditions, and under ``presets`` a row of figures by each preset's name; none is ``{}`` there.

    Args:
        text: the JSON to read; by default the packaged file.
    """
    if text is None:
        packaged = files("pah_opt.presets") / FILE
        text = packaged.read_text(encoding="utf-8") if packaged.is_file() else '{"presets": {}}'
    found: dict[str, Any] = json.loads(text)
    return found


def conditions(found: dict[str, Any]) -> str:
    """Return under what conditions the figures were measured, in a sentence without its full stop."""
    first, last = found["batches"][0], found["batches"][-1]
    return (
        f"{found['model']} on {found['data']}, {found['calibration_images']} calibration images, {found['cpu']}, "
        f"{found['threads']} threads, torch {found['torch']}; times in turns with the dense model in fp32, faster at "
        f"batch {first}, throughput at batch {last}"
    )


def in_words(row: dict[str, Any] | None) -> str:
    """Return the figures of one preset in a line."""
    if row is None:
        return NOT_MEASURED
    return (
        f"{row['top1_delta_pp']:+.2f} points, {row['artifact_bytes'] / 1e6:.1f} MB, "
        f"{row['speedup_p50_x']:.2f}x the speed, {row['throughput_x']:.2f}x throughput, on {row['images']:,} images"
    )
