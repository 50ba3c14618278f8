"""What the tests of several strategies share: a step that ran, and a small ViT trained on digits that it can spoil."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from pah_opt.data import TensorSplit
from pah_opt.environment import Environment
from pah_opt.layout import ModelAdapter
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.optimizer import AnyOptimizer, Context
from pah_opt.splits import Data
from pah_opt.testing import tiny_vit

DIGITS = tuple(str(digit) for digit in range(10))


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


RunStep = Callable[..., Ran]


@pytest.fixture(scope="session")
def run_step() -> RunStep:
    """Check a strategy and apply it to a copy of a model, as the pipeline prepares it."""

    def run(step: AnyOptimizer, model: nn.Module, parameters: dict[str, Any], **options: Any) -> Ran:
        adapter = find_adapter(model, pah_opt_model_adapters())
        before = adapter.prepare(copy.deepcopy(model)).eval()
        context = Context(adapter, Environment(), reference=before, **options)
        config = step.config_type(**parameters)
        assert step.check(before, config, context) == []
        after = step.apply(copy.deepcopy(before), config, context)
        return Ran(before, after, context.achieved, adapter)

    return run


@pytest.fixture(scope="session")
def digits() -> Data:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed: no digits to train on")
    images, labels = datasets.load_digits(return_X_y=True)
    pixels = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8).expand(-1, 3, -1, -1)
    whole = TensorSplit(((pixels - 0.3053) / 0.3761).contiguous(), torch.tensor(labels), DIGITS, "digits")
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0)).tolist()
    return Data(test=whole.subset(order[:497]), train=whole.subset(order[497:]))


@pytest.fixture(scope="session")
def train_on_digits(digits: Data) -> Callable[[int, int], nn.Module]:
    """Train a ViT of three blocks on 1,300 digits for some seconds, to about 97 %."""

    def train(mlp: int, epochs: int) -> nn.Module:
        assert digits.train is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = tiny_vit(blocks=3, heads=4, hidden=48, mlp=mlp, image=8, patch=4).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, weight_decay=0.05)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=epochs * 14)
            for epoch in range(epochs):
                for pixels, labels in digits.train.batches(96, shuffle_seed=epoch):
                    optimizer.zero_grad(set_to_none=True)
                    functional.cross_entropy(model(pixels).logits, labels).backward()
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    schedule.step()
        model.zero_grad(set_to_none=True)
        return model.eval()

    return train


class Judge:
    """Compares pruned models with the trained one on held-out digits."""

    def __init__(self, dense: nn.Module, data: Data) -> None:
        assert data.train is not None
        self.dense = dense
        self.data = data
        self.calibration = data.train.subset(range(256))

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """Top-1, in per cent."""
        test = self.data.test
        return 100 * sum(int((model(x).logits.argmax(1) == y).sum()) for x, y in test.batches(512)) / len(test)

    @torch.no_grad()
    def divergence(self, model: nn.Module) -> float:
        """Mean Kullback-Leibler divergence of class probabilities from the dense model's."""
        total = 0.0
        for pixels, _ in self.data.test.batches(512):
            ours, theirs = (m(pixels).logits.log_softmax(dim=1) for m in (model, self.dense))
            total += float(functional.kl_div(ours, theirs, log_target=True, reduction="sum"))
        return total / len(self.data.test)


@pytest.fixture
def judge(trained: nn.Module, digits: Data) -> Judge:
    return Judge(trained, digits)
