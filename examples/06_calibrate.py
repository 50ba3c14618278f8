"""Prune with calibration images: the weights that stay take over for those that go, without training.

Teaches: what a few unlabelled images are worth (closed-form repair). The figures differ a little by machine.
Output:
    70 % zeros, by magnitude: top-1 62.67 %
    70 % zeros, with repair:  top-1 97.78 %
"""

from __future__ import annotations

import pah_opt
from pah_opt import Recipe, Step
from pah_opt.adapt import evaluate, pretrained_digits_vit
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry


def main() -> None:
    """Prune the same model twice."""
    digits = pretrained_digits_vit()
    adapter = find_adapter(digits.model, default_registry().adapters)
    for label, strategy in (("by magnitude:", "magnitude-pruning"), ("with repair: ", "sparsegpt")):
        recipe = Recipe(steps=[Step.of(strategy, sparsity=0.7)])
        # calibration images are taken from the training images, never from the test images
        artifact = pah_opt.apply(digits.model, recipe, digits.data, calibration_images=256)
        score = evaluate(artifact.model, digits.data.test, adapter)
        print(f"70 % zeros, {label} top-1 {100 * score.accuracy:.2f} %")


if __name__ == "__main__":
    main()
