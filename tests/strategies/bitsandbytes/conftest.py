"""Running the bitsandbytes step on tiny models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.layout import ModelAdapter
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.strategies.bitsandbytes import Bitsandbytes
from pah_opt.testing import tiny_images, tiny_vit


@pytest.fixture
def adapter() -> Callable[[nn.Module], ModelAdapter]:
    return lambda model: find_adapter(model, pah_opt_model_adapters())


@pytest.fixture
def run(run_step: Callable[..., Any]) -> Callable[..., Any]:
    def run_on(model: nn.Module, *, planning: bool = False, **parameters: Any) -> Any:
        return run_step(Bitsandbytes(), model, parameters, planning=planning)

    return run_on


@pytest.fixture
def vit() -> nn.Module:
    return tiny_vit(hidden=64, mlp=128, blocks=2)


@pytest.fixture
def pixels() -> torch.Tensor:
    return tiny_images(4, seed=7)
