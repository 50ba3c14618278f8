"""Compare models side by side: accuracy on held-out images, file size, latency.

Teaches: `pah_opt.compare`, one report for all figures, and how to read a difference with its interval.
Output:
    dense          top-1 99.11 %  0.827 MB
    int8           top-1 99.11 %  0.260 MB  +0.00 points
    sparse-50-int8 top-1 98.89 %  0.197 MB  -0.22 points
"""

from __future__ import annotations

import pah_opt
from pah_opt import MeasureSettings, Recipe, Step
from pah_opt.adapt import pretrained_digits_vit


def main() -> None:
    """Make two candidates and compare them with the dense model."""
    digits = pretrained_digits_vit()
    int8 = Step.of("torchao", scheme="int8-weight-only")
    recipes = {"int8": (int8,), "sparse-50-int8": (Step.of("sparsegpt", sparsity=0.5), int8)}
    made = {name: pah_opt.apply(digits.model, Recipe(steps=steps), digits.data) for name, steps in recipes.items()}

    report = pah_opt.compare({"dense": digits.model, **made}, digits.data, settings=MeasureSettings.quick())
    for model in report.models:
        delta = model.accuracy.top1_delta_pp
        change = "" if delta is None else f"  {delta:+.2f} points"
        size = model.memory.artifact_bytes / 1e6
        print(f"{model.id:14} top-1 {100 * model.accuracy.top1:.2f} %  {size:.3f} MB{change}")
    report.save("report.json")  # report.to_html(), .to_markdown(), .to_csv() render it; pah-opt explain reads it


if __name__ == "__main__":
    main()
