"""Running the torchao step on tiny models, with calibration images that need no file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.data import TensorSplit
from pah_opt.environment import Environment
from pah_opt.layout import ModelAdapter
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.optimizer import Context
from pah_opt.strategies.torchao import Torchao, TorchaoConfig
from pah_opt.testing import tiny_images, tiny_vit


def adapter_of(model: nn.Module) -> ModelAdapter:
    return find_adapter(model, pah_opt_model_adapters())


def images_for(model: nn.Module, count: int = 24, seed: int = 0) -> TensorSplit:
    layout = adapter_of(model).layout(model)
    pixels = tiny_images(count, image=layout.image_size[0], channels=layout.in_channels, seed=seed)
    return TensorSplit(pixels, torch.arange(count) % layout.num_classes, [str(i) for i in range(layout.num_classes)])


@dataclass
class Ran:
    """A step that ran: the model before (prepared), after, and what was reported."""

    before: nn.Module
    model: nn.Module
    achieved: dict[str, Any]
    adapter: ModelAdapter

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.adapter.logits(self.model(pixels))

    def error(self, pixels: torch.Tensor) -> float:
        """Relative error of the logits."""
        with torch.no_grad():
            wanted = self.adapter.logits(self.before(pixels))
        return float((self.logits(pixels) - wanted).norm() / wanted.norm())


Run = Callable[..., Ran]


@pytest.fixture
def run() -> Run:
    def run_on(
        model: nn.Module, split: Any = "default", *, planning: bool = False, seed: int = 0, **parameters: Any
    ) -> Ran:
        adapter = adapter_of(model)
        before = adapter.prepare(copy.deepcopy(model)).eval()
        split = images_for(before) if isinstance(split, str) else split
        context = Context(
            adapter, Environment(), seed=seed, calibration=split, training=split, reference=before, planning=planning
        )
        config, step = TorchaoConfig(**parameters), Torchao()
        assert step.check(before, config, context) == []
        after = step.apply(copy.deepcopy(before), config, context)
        return Ran(before, after, context.achieved, adapter)

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
