"""Apply a recipe to a model.

Teaches: `pah_opt.apply`, what an Artifact says about its steps, and that the caller's model is left alone.
Output:
    dense: 205,002 parameters
    torchao: linear layers are stored as {'int8': 24, 'fp32': 1}
    the caller's model is still {'fp32': 25}
    answers: 0 0 4 1 2 labels: 0 0 4 1 2
"""

from __future__ import annotations

import torch

import pah_opt
from pah_opt.adapt import pretrained_digits_vit


def main() -> None:
    """Quantize a small ViT and use it."""
    digits = pretrained_digits_vit()  # a model and its images; any ViT classifier will do
    recipe = pah_opt.Recipe(steps=[pah_opt.Step.of("torchao", scheme="int8-weight-only")])
    artifact = pah_opt.apply(digits.model, recipe, digits.data)

    step = artifact.steps[0]
    print(f"dense: {step.before['params']:,} parameters")
    print(f"{step.use}: linear layers are stored as {step.after['linear_dtypes']}")
    print(f"the caller's model is still {step.before['linear_dtypes']}")

    images, labels = next(digits.data.test.batches(5))
    with torch.inference_mode():
        answers = artifact.model(images).logits.argmax(1)  # an ordinary nn.Module, with transformers' outputs
    print("answers:", *answers.tolist(), "labels:", *labels.tolist())


if __name__ == "__main__":
    main()
