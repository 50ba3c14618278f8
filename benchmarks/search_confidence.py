"""What a search's limit on accuracy is worth on images that did not decide, with and without ``confidence``.

The embedded digits model, the smallest file that loses at most 2 points; each pick's drop on the validation images,
which chose it, beside that on the test images, which chose nothing. Prints Markdown and writes
``benchmarks/results/search_confidence.json``.

    python benchmarks/search_confidence.py --seconds 40 --seeds 5
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pah_opt.adapt import pretrained_digits_vit
from pah_opt.measure.environment import cpu_model
from pah_opt.measure.settings import MeasureSettings
from pah_opt.report.figures import figure
from pah_opt.search.searching import search

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parent / "results" / "search_confidence.json"
CONFIDENCES = (None, 0.8, 0.95)
DROP_PP = 2.0


def pick(seed: int, confidence: float | None, seconds: float) -> dict[str, Any]:
    """Search once; return what the pick loses on either images, and its size."""
    digits = pretrained_digits_vit()
    sure = {} if confidence is None else {"confidence": confidence}
    found = search(
        digits.model, digits.data, {"minimise": "size", "top1_drop_pp": DROP_PP, **sure}, space="small", seed=seed,
        trials=100_000, minutes=seconds / 60.0, measure=MeasureSettings.quick(groups={"accuracy"}),
    )  # fmt: skip
    row: dict[str, Any] = {"seed": seed, "confidence": confidence, "validation_images": found.validation_images}
    if found.pick is None or found.report is None:
        return {**row, "why_no_pick": found.why_no_pick}
    chosen = next(record for record in found.front if record.keeps(found.budget))
    model = found.report.models[-1]
    return {
        **row, "file_bytes": chosen.figures["artifact_bytes"], "validation_drop_pp": chosen.figures["top1_drop_pp"],
        "test_drop_pp": figure("top1_drop_pp").find(model).value, "test_images": model.provenance.n_images,
        "trials": len(found.records),
    }  # fmt: skip


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Render one line for each confidence, figures of its seeds side by side."""
    lines = [
        "| confidence | loses, validation | loses, test | keeps 2 points on test | file, kB |",
        "|---|---|---|---|---|",
    ]
    for confidence in CONFIDENCES:
        of = [row for row in rows if row["confidence"] == confidence and "file_bytes" in row]
        figures = [
            ", ".join(f"{row[name] / scale:.{digits}f}" for row in of)
            for name, scale, digits in (("validation_drop_pp", 1, 1), ("test_drop_pp", 1, 1), ("file_bytes", 1e3, 0))
        ]
        held = sum(row["test_drop_pp"] <= DROP_PP for row in of)
        lines.append(f"| {confidence or 'none'} | {figures[0]} | {figures[1]} | {held} of {len(of)} | {figures[2]} |")
    return "\n".join(lines)


def main() -> None:
    """Run all searches, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0, help="of each search")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = [pick(seed, sure, options.seconds) for seed in range(options.seeds) for sure in CONFIDENCES]
    found = {
        "seconds": options.seconds, "drop_pp": DROP_PP, "cpu": cpu_model(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "rows": rows,
    }  # fmt: skip
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(markdown(rows))


if __name__ == "__main__":
    main()
