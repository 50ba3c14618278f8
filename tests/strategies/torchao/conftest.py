"""Running the torchao step on tiny models, with calibration images that need no file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.data import TensorSplit
from pah_opt.layout import ModelAdapter
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.strategies.torchao import Torchao
from pah_opt.testing import tiny_images, tiny_vit


def adapter_of(model: nn.Module) -> ModelAdapter:
    return find_adapter(model, pah_opt_model_adapters())


def images_for(model: nn.Module, count: int = 24, seed: int = 0) -> TensorSplit:
    layout = adapter_of(model).layout(model)
    pixels = tiny_images(count, image=layout.image_size[0], channels=layout.in_channels, seed=seed)
    return TensorSplit(pixels, torch.arange(count) % layout.num_classes, [str(i) for i in range(layout.num_classes)])


@pytest.fixture
def run(run_step: Callable[..., Any]) -> Callable[..., Any]:
    """Run the step with calibration and training images that fit the model, unless a test gives others."""

    def run_on(
        model: nn.Module, split: Any = "default", *, planning: bool = False, seed: int = 0, **parameters: Any
    ) -> Any:
        split = images_for(model) if isinstance(split, str) else split
        options = {"calibration": split, "training": split, "planning": planning, "seed": seed}
        return run_step(Torchao(), model, parameters, **options)

    return run_on


@pytest.fixture
def vit() -> nn.Module:
    return tiny_vit(hidden=64, mlp=128, blocks=2)


@pytest.fixture
def pixels() -> torch.Tensor:
    return tiny_images(4, seed=7)


@pytest.fixture
def images() -> Callable[..., TensorSplit]:
    return images_for


@pytest.fixture
def adapter() -> Callable[[nn.Module], ModelAdapter]:
    return adapter_of


@pytest.fixture
def outlier_vit(vit: nn.Module) -> nn.Module:
    """A ViT with a few huge channels in every normalised token and small weights behind them, as trained ones have."""
    with torch.no_grad():
        for name, module in vit.named_modules():
            if isinstance(module, nn.LayerNorm) and ".layers." in name:
                module.weight[:2] *= 150.0
                module.bias[3] = 80.0
            if name.endswith(("q_proj", "k_proj", "v_proj", "fc1")):
                module.weight[:, :4] /= 50.0
    return vit
