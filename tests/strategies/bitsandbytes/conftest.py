"""Running the bitsandbytes step on tiny models."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.environment import Environment
from pah_opt.layout import ModelAdapter
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.optimizer import Context
from pah_opt.strategies.bitsandbytes import Bitsandbytes, BitsandbytesConfig
from pah_opt.testing import tiny_images, tiny_vit


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


@pytest.fixture
def adapter() -> Callable[[nn.Module], ModelAdapter]:
    return lambda model: find_adapter(model, pah_opt_model_adapters())


@pytest.fixture
def run() -> Callable[..., Ran]:
    def run_on(model: nn.Module, *, planning: bool = False, **parameters: Any) -> Ran:
        adapter = find_adapter(model, pah_opt_model_adapters())
        before = adapter.prepare(copy.deepcopy(model)).eval()
        context = Context(adapter, Environment(), planning=planning)
        config, step = BitsandbytesConfig(**parameters), Bitsandbytes()
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
