"""Contexts for running one strategy, and a small ViT that was really trained: pruning has something to spoil."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from pah_opt.data import TensorSplit
from pah_opt.environment import Environment
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.optimizer import AnyOptimizer, Context
from pah_opt.splits import Data
from pah_opt.testing import tiny_images, tiny_vit

Run = Callable[..., tuple[nn.Module, dict[str, Any]]]
DIGITS = tuple(str(digit) for digit in range(10))


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


@pytest.fixture(scope="session")
def digits() -> Data:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed: no digits to train on")
    images, labels = datasets.load_digits(return_X_y=True)
    pixels = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8).expand(-1, 3, -1, -1)
    pixels = (pixels - 0.3053) / 0.3761
    whole = TensorSplit(pixels.contiguous(), torch.tensor(labels), DIGITS, "digits")
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0)).tolist()
    return Data(test=whole.subset(order[:497]), train=whole.subset(order[497:]))


@pytest.fixture(scope="session")
def trained(digits: Data) -> nn.Module:
    """A ViT of three blocks, trained on 1,300 digits for some seconds to about 97 %."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tiny_vit(blocks=3, heads=4, hidden=48, mlp=96, image=8, patch=4).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=25 * 14)
        for epoch in range(25):
            for pixels, labels in digits.train.batches(96, shuffle_seed=epoch):
                optimizer.zero_grad(set_to_none=True)
                functional.cross_entropy(model(pixels).logits, labels).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
    for parameter in model.parameters():
        parameter.grad = None
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    """Top-1 on the test images, in per cent."""
    hits = sum(int((model(pixels).logits.argmax(1) == labels).sum()) for pixels, labels in data.test.batches(512))
    return 100 * hits / len(data.test)


@torch.no_grad()
def divergence(model: nn.Module, dense: nn.Module, data: Data) -> float:
    """Mean Kullback-Leibler divergence of the test images' class probabilities from the dense model's."""
    total = 0.0
    for pixels, _ in data.test.batches(512):
        ours, theirs = (m(pixels).logits.log_softmax(dim=1) for m in (model, dense))
        total += float(functional.kl_div(ours, theirs, log_target=True, reduction="sum"))
    return total / len(data.test)


class Judge:
    """Compares pruned models with the trained one."""

    def __init__(self, dense: nn.Module, data: Data) -> None:
        self.dense = dense
        self.data = data
        self.calibration = data.train.subset(range(256))

    def accuracy(self, model: nn.Module) -> float:
        return accuracy(model, self.data)

    def divergence(self, model: nn.Module) -> float:
        return divergence(model, self.dense, self.data)


@pytest.fixture
def judge(trained: nn.Module, digits: Data) -> Judge:
    return Judge(trained, digits)


@pytest.fixture
def context() -> Callable[..., Context]:
    return context_for


@pytest.fixture
def images() -> Callable[..., TensorSplit]:
    """Make random labelled images that fit a model."""
    return images_like
