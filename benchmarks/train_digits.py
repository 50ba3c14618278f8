"""Train the small ViT that ships with the package, and write its weights and its card.

    python benchmarks/train_digits.py

Half a minute on two cores. Run again, it gives the same weights on the same machine and versions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from pah_opt.adapt import evaluate, train_digits_vit
from pah_opt.adapt.digits import SETTINGS, WEIGHTS_FILE
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.progress import default_progress

FOLDER = Path(__file__).parents[1] / "src" / "pah_opt" / "adapt" / "weights"

CARD = """# A small ViT for handwritten digits

The model that the library's demo, examples and tests use. {parameters:,} parameters in fp32, 4 blocks of 4 heads, 16 px
grey images as three channels, patches of 4 px, ten classes.

- Made by `python benchmarks/train_digits.py`: seed 0, {epochs} epochs of AdamW at {lr:g}, batch {batch}, torch {torch}.
- Data: scikit-learn's digits (UCI, "Optical Recognition of Handwritten Digits", CC BY 4.0), {train:,} images of it.
- Top-1 on the {test} images that it was not trained on: {top1:.2%}.
- For trying the library without a download. It recognises nothing but centred digits of 8 x 8 pixels.
- Licence: Apache-2.0, as the library.
"""


def main() -> None:
    """Train, judge on held-out images, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FOLDER)
    folder = parser.parse_args().out
    trained = train_digits_vit(progress=default_progress())
    adapter = find_adapter(trained.model, pah_opt_model_adapters())
    score = evaluate(trained.model, trained.data.test, adapter)
    card = CARD.format(
        parameters=sum(parameter.numel() for parameter in trained.model.parameters()),
        epochs=SETTINGS.epochs, lr=SETTINGS.lr, batch=SETTINGS.batch_size, torch=torch.__version__.split("+")[0],
        train=len(trained.data.train or ()), test=len(trained.data.test), top1=score.accuracy,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    save_file(trained.model.state_dict(), folder / WEIGHTS_FILE)
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(card)


if __name__ == "__main__":
    main()
