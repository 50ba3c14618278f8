"""Tiny models and images that can be learned in a few updates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from pah_opt.data import TensorSplit
from pah_opt.layout import ModelAdapter
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.testing.models import tiny_vit

MakeSplit = Callable[..., TensorSplit]


def coloured(count: int = 48, *, classes: int = 3, size: int = 16, seed: int = 0, noise: float = 0.3) -> TensorSplit:
    """Noisy images whose brightest channel is their label."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    pixels = noise * torch.randn(count, 3, size, size, generator=generator)
    pixels[torch.arange(count), labels] += 1.0
    return TensorSplit(pixels, labels, tuple("abcdefghij"[:classes]), f"coloured-{seed}")


@pytest.fixture
def make_split() -> MakeSplit:
    """Make splits of coloured images."""
    return coloured


@pytest.fixture
def train() -> TensorSplit:
    """48 images of three classes."""
    return coloured()


@pytest.fixture
def validation() -> TensorSplit:
    """24 other images of the same classes."""
    return coloured(24, seed=1)


@pytest.fixture
def model() -> nn.Module:
    """A ViT of two blocks and three classes for 16 by 16 pixels."""
    return tiny_vit(classes=3, image=16)


@pytest.fixture
def adapter(model: nn.Module) -> ModelAdapter:
    """The adapter of that model."""
    return find_adapter(model, default_registry().adapters)
