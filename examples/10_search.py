"""Let the library look for a recipe within limits.

Teaches: `pah_opt.search`: a budget, a space of recipes, the front, and the pick, measured once on the test images.
On the command line: `pah-opt search SPACE.yaml --model … --data …`. Figures, and with them the pick, differ by machine.
Output:
    6 trials, 3 of them on the front
    pick: magnitude-pruning, torchao
    on the test images: -0.22 points, 0.205 MB
"""

from __future__ import annotations

import pah_opt
from pah_opt.adapt import pretrained_digits_vit

SPACE = """
name: example
steps:
  - {use: magnitude-pruning, optional: true, with: {sparsity: {low: 0.1, high: 0.6}}}
  - {use: torchao, optional: true, with: {scheme: int8-weight-only}}
"""


def main() -> None:
    """Look for the smallest file that loses at most a point."""
    digits = pretrained_digits_vit()
    budget = {"top1_drop_pp": 1.0, "minimise": "size"}
    found = pah_opt.search(digits.model, digits.data, budget, space=SPACE, trials=6, seed=0)
    print(f"{len(found.records)} trials, {len(found.front)} of them on the front")
    print("pick:", ", ".join(step.use for step in found.pick.steps))
    pick = found.report.candidates[0]
    print(f"on the test images: {pick.accuracy.top1_delta_pp:+.2f} points, {pick.memory.artifact_bytes / 1e6:.3f} MB")


if __name__ == "__main__":
    main()
