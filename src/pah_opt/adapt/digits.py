"""The embedded default: a small ViT, trained from nothing on real images in half a minute on two cores."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import torch

from pah_opt.adapt.settings import Augmentation, TrainSettings
from pah_opt.adapt.training import fit
from pah_opt.data import digits_data, training_images
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.adapt.results import TrainResult
    from pah_opt.progress import Progress
    from pah_opt.splits import Data

IMAGE_SIZE = 16
"""The originals' 8 pixels, doubled: shifts by one pixel then augment without tearing a stroke apart."""

WEIGHTS_FILE = "digits-vit.safetensors"
SETTINGS = TrainSettings(
    epochs=20,
    lr=1.5e-3,
    batch_size=32,
    label_smoothing=0.1,
    augmentation=Augmentation(crop=1 / IMAGE_SIZE, mixup=0.2),
)


@dataclass(frozen=True)
class Digits:
    """A trained ViT with the images it was trained and not trained on.

    Args:
        model: ``transformers.ViTForImageClassification`` in ``eval`` mode.
        data: its images, preprocessed for it.
    """

    model: nn.Module
    data: Data


@dataclass(frozen=True)
class TrainedDigits(Digits):
    """A ViT that was trained just now.

    Args:
        result: how training went.
    """

    result: TrainResult


def pretrained_digits_vit() -> Digits:
    """Load the ViT that ships with the package: what :func:`train_digits_vit` makes with seed 0, in no time.

    Its card, ``weights/README.md`` beside this module, says how it was made and what it scores.

    Raises:
        MissingBackendError: scikit-learn or pillow is not installed; both are in ``pah-opt[demo]``.
    """
    return Digits(trained_digits_vit(), digits_data(IMAGE_SIZE, 0))


def trained_digits_vit() -> nn.Module:
    """Return the model of :func:`pretrained_digits_vit`, without images."""
    from safetensors.torch import load

    model = digits_vit()
    model.load_state_dict(load((files("pah_opt.adapt") / "weights" / WEIGHTS_FILE).read_bytes()))
    return model


def digits_vit(seed: int = 0) -> nn.Module:
    """Return the untrained model: 205,002 parameters, 4 blocks, 4 heads, every width a multiple of 16.

    Args:
        seed: of the initial weights.
    """
    with quiet_transformers(), torch.random.fork_rng(devices=[]), torch.device("cpu"):
        from transformers import ViTConfig, ViTForImageClassification

        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        config = ViTConfig(
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=256,
            image_size=IMAGE_SIZE,
            patch_size=4,
            # About 1 / sqrt(hidden_size); with ViT-B's 0.02 so narrow a model hardly learns at first.
            initializer_range=0.1,
            id2label={digit: str(digit) for digit in range(10)},
            label2id={str(digit): digit for digit in range(10)},
        )
        model: nn.Module = ViTForImageClassification(config)
    return model.eval()


def train_digits_vit(
    seed: int = 0, *, settings: TrainSettings | None = None, progress: Progress | None = None
) -> TrainedDigits:
    """Train a small ViT on three quarters of scikit-learn's digits; about 98 % of the others are then recognised.

    Args:
        seed: of the split, the initial weights and the training; the same seed gives the same model on the CPU.
        settings: how to train; :data:`SETTINGS` by default.
        progress: shows progress.

    Raises:
        MissingBackendError: scikit-learn, pillow or accelerate is not installed; all are in ``pah-opt[demo]``.
    """
    data = digits_data(IMAGE_SIZE, seed)
    model = digits_vit(seed)
    adapter = find_adapter(model, pah_opt_model_adapters())
    result = fit(model, training_images(data), settings or SETTINGS, adapter=adapter, progress=progress, seed=seed)
    return TrainedDigits(model, data, result)
