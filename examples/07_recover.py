"""Win accuracy back with a short fine-tuning, the dense model as teacher; zeros and shapes are held.

Teaches: the `recover` step, and reading its record.
Output:
    half the heads and MLP units removed
    recover: 20 updates, last loss 0.09
    top-1 96.89 %
"""

from __future__ import annotations

import pah_opt
from pah_opt import Recipe, Step
from pah_opt.adapt import evaluate, pretrained_digits_vit
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry


def main() -> None:
    """Prune to half the width and recover for one epoch."""
    digits = pretrained_digits_vit()
    recipe = Recipe(
        steps=[
            Step.of("structured-pruning", heads=0.5, mlp=0.5),
            Step.of("recover", epochs=1, lr=1e-3, distill=0.5),  # distill: the dense model's share in the loss
        ]
    )
    artifact = pah_opt.apply(digits.model, recipe, digits.data)
    print("half the heads and MLP units removed")
    recovery = artifact.steps[1].achieved
    print(f"recover: {recovery['steps']} updates, last loss {recovery['losses'][-1]:.2f}")
    adapter = find_adapter(digits.model, default_registry().adapters)
    print(f"top-1 {100 * evaluate(artifact.model, digits.data.test, adapter).accuracy:.2f} %")


if __name__ == "__main__":
    main()
