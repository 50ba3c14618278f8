"""Contexts for running one strategy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.data import TensorSplit
from pah_opt.environment import Environment
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.optimizer import AnyOptimizer, Context
from pah_opt.testing import tiny_images

Run = Callable[..., tuple[nn.Module, dict[str, Any]]]


def prepared(model: nn.Module) -> nn.Module:
    """Return the model as the pipeline hands it to a step."""
    return find_adapter(model, pah_opt_model_adapters()).prepare(model)


def context_for(model: nn.Module, calibration: Any = None, **options: Any) -> Context:
    adapter = find_adapter(model, pah_opt_model_adapters())
    return Context(adapter, options.pop("environment", Environment()), calibration=calibration, **options)


def images_like(model: nn.Module, count: int = 12, seed: int = 0) -> TensorSplit:
    layout = find_adapter(model, pah_opt_model_adapters()).layout(model)
    labels = torch.arange(count) % layout.num_classes
    pixels = tiny_images(count, image=layout.image_size[0], channels=layout.in_channels, seed=seed)
    return TensorSplit(pixels, labels, [str(label) for label in range(layout.num_classes)])


@pytest.fixture
def run() -> Run:
    """Check and apply a strategy to a copy of a model; return it with what the step reported."""

    def run_on(optimizer: AnyOptimizer, model: nn.Module, calibration: Any = None, **parameters: Any) -> Any:
        config = optimizer.config_type(**parameters)
        model = prepared(copy.deepcopy(model)).eval()
        context = context_for(model, calibration)
        assert optimizer.check(model, config, context) == []
        return optimizer.apply(model, config, context), context.achieved

    return run_on


@pytest.fixture
def context() -> Callable[..., Context]:
    return context_for


@pytest.fixture
def images() -> Callable[..., TensorSplit]:
    """Make random labelled images that fit a model."""
    return images_like


@pytest.fixture(scope="session")
def trained(trained_on_digits: Callable[[int], nn.Module]) -> nn.Module:
    return trained_on_digits(96)
