"""What the tests of several strategies share: a step that ran, and a small ViT trained on digits that it can spoil."""

from __future__ import annotations

import copy
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from pah_opt.environment import Environment
from pah_opt.layout import ModelAdapter
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.optimizer import AnyOptimizer, Context
from pah_opt.splits import Data

MAKER = runpy.run_path(str(Path(__file__).with_name("make_weights.py")))
"""The script that trains the models, and tells how they are loaded."""


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
    pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed: no digits to judge by")
    return MAKER["digits"]()  # type: ignore[no-any-return]  # a script's function


@pytest.fixture(scope="session")
def trained_on_digits() -> Callable[[int], nn.Module]:
    """Load a ViT of three blocks that recognises about 97 % of the digits, by the width of its MLPs."""
    return MAKER["load"]  # type: ignore[no-any-return]  # a script's function


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
