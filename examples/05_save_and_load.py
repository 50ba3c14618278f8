"""Save an optimized model and load it again, elsewhere, without the data and without the libraries that made it.

Teaches: `artifact.save`, `pah_opt.load(verify=True)`, what is in the folder.
Output:
    0.154 MB in model.safetensors
    the same logits: True
    made by: structured-pruning, torchao
"""

from __future__ import annotations

from pathlib import Path

import torch

import pah_opt
from pah_opt import Recipe, Step
from pah_opt.adapt import pretrained_digits_vit


def main() -> None:
    """Prune, quantize, save, load, compare."""
    digits = pretrained_digits_vit()
    steps = (Step.of("structured-pruning", heads=0.5, mlp=0.5), Step.of("torchao", scheme="int8-weight-only"))
    artifact = pah_opt.apply(digits.model, Recipe(steps=steps), digits.data, on_collapse="ignore")
    folder = artifact.save(Path("half-width-int8"), overwrite=True)
    print(f"{(folder / 'model.safetensors').stat().st_size / 1e6:.3f} MB in model.safetensors")

    again = pah_opt.load(folder, verify=True)  # verify: recompute the stored examples' logits
    images = next(digits.data.test.batches(32)).pixel_values
    with torch.inference_mode():
        print("the same logits:", torch.equal(artifact.model(images).logits, again.model(images).logits))
    print("made by:", ", ".join(step.use for step in again.steps))


if __name__ == "__main__":
    main()
