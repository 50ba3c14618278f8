"""Runs of one strategy on tiny models, and a small ViT that was really trained, so that pruning can spoil it."""

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
from pah_opt.layout import Layout
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.optimizer import AnyOptimizer, Context
from pah_opt.splits import Data
from pah_opt.testing import TINY_MODELS, tiny_images, tiny_vit

ADAPTERS = tuple(pah_opt_model_adapters())
DIGITS = tuple(str(digit) for digit in range(10))


class Bench:
    """Prepares models, runs strategies on copies of them, and compares logits."""

    def layout(self, model: nn.Module) -> Layout:
        return find_adapter(model, ADAPTERS).layout(model)

    def prepared(self, model: nn.Module) -> nn.Module:
        return find_adapter(model, ADAPTERS).prepare(copy.deepcopy(model)).eval()

    def context(self, model: nn.Module, **options: Any) -> Context:
        return Context(find_adapter(model, ADAPTERS), Environment(), **options)

    def images(self, model: nn.Module, count: int = 12, seed: int = 0) -> TensorSplit:
        layout = self.layout(model)
        labels = torch.arange(count) % layout.num_classes
        pixels = tiny_images(count, image=layout.image_size[0], channels=layout.in_channels, seed=seed)
        return TensorSplit(pixels, labels, [str(label) for label in range(layout.num_classes)])

    def problems(self, optimizer: AnyOptimizer, model: nn.Module, **parameters: Any) -> list[str]:
        align = parameters.pop("context_align", 1)
        model = self.prepared(model)
        return optimizer.check(model, optimizer.config_type(**parameters), self.context(model, align=align))

    def run(
        self, optimizer: AnyOptimizer, model: nn.Module, calibration: Any = None, *, align: int = 1, seed: int = 0,
        **parameters: Any,
    ) -> tuple[nn.Module, dict[str, Any]]:  # fmt: skip
        config = optimizer.config_type(**parameters)
        model = self.prepared(model)
        context = self.context(model, calibration=calibration, align=align, seed=seed)
        assert optimizer.check(model, config, context) == []
        result = optimizer.apply(model, config, context)
        assert context.adapter.disagreements(result) == []
        return result, context.achieved

    def dry_run(self, optimizer: AnyOptimizer, model: nn.Module, *, align: int = 1, **parameters: Any) -> nn.Module:
        model = self.prepared(model).to("meta")
        context = self.context(model, align=align, planning=True)
        return optimizer.apply(model, optimizer.config_type(**parameters), context)

    def logits(self, model: nn.Module, count: int = 3) -> torch.Tensor:
        layout = self.layout(model)
        pixels = tiny_images(count, image=layout.image_size[0], channels=layout.in_channels, seed=9)
        with torch.no_grad():
            return find_adapter(model, ADAPTERS).logits(model(pixels))

    def shapes(self, model: nn.Module) -> dict[str, tuple[int, ...]]:
        return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench()


@pytest.fixture(params=sorted(TINY_MODELS))
def family(request: pytest.FixtureRequest) -> Callable[..., nn.Module]:
    """A maker of tiny models, once for each kind there is."""
    return TINY_MODELS[request.param]


@pytest.fixture(scope="session")
def digits() -> Data:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed: no digits to train on")
    images, labels = datasets.load_digits(return_X_y=True)
    pixels = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8).expand(-1, 3, -1, -1)
    whole = TensorSplit(((pixels - 0.3053) / 0.3761).contiguous(), torch.tensor(labels), DIGITS, "digits")
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0)).tolist()
    return Data(test=whole.subset(order[:497]), train=whole.subset(order[497:]))


@pytest.fixture(scope="session")
def trained(digits: Data) -> nn.Module:
    """A ViT of three blocks, trained on 1,300 digits for some seconds to about 97 %."""
    assert digits.train is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tiny_vit(blocks=3, heads=4, hidden=48, mlp=128, image=8, patch=4).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=20 * 14)
        for epoch in range(20):
            for pixels, labels in digits.train.batches(96, shuffle_seed=epoch):
                optimizer.zero_grad(set_to_none=True)
                functional.cross_entropy(model(pixels).logits, labels).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
    for parameter in model.parameters():
        parameter.grad = None
    return model.eval()


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
