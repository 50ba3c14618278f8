"""Tiny real models and images; everything here takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from pah_opt.data import TensorSplit
from pah_opt.measure.candidate import Candidate
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry

if TYPE_CHECKING:
    from pah_opt.layout import ModelAdapter

MakeVit = Callable[..., nn.Module]
SMALL = {
    "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "num_hidden_layers": 2, "image_size": 16,
    "patch_size": 8, "num_labels": 10,
}  # fmt: skip


def vit(seed: int = 0, **changes: Any) -> nn.Module:
    """Make a seeded ViT of two blocks."""
    torch.manual_seed(seed)
    return ViTForImageClassification(ViTConfig(**{**SMALL, **changes})).eval()


@pytest.fixture
def make_vit() -> MakeVit:
    return vit


@pytest.fixture
def model() -> nn.Module:
    return vit()


@pytest.fixture
def adapter(model: nn.Module) -> ModelAdapter:
    return find_adapter(model, default_registry().adapters)


@pytest.fixture
def candidate(model: nn.Module) -> Candidate:
    return Candidate.of("dense", model, default_registry().adapters)


@pytest.fixture
def split(model: nn.Module) -> TensorSplit:
    """Images on which the model is right three times out of four."""
    pixels = torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = model(pixels).logits.argmax(dim=1)
    labels[::4] = (labels[::4] + 1) % 10
    return TensorSplit(pixels, labels, tuple("abcdefghij"), "made up")
