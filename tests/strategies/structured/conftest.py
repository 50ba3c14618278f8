"""Runs of one strategy on tiny models."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pah_opt.data import TensorSplit
from pah_opt.environment import Environment
from pah_opt.layout import Layout
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.optimizer import AnyOptimizer, Context
from pah_opt.testing import TINY_MODELS, tiny_images

ADAPTERS = tuple(pah_opt_model_adapters())


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

    def amount(self, model: nn.Module, figure: str) -> int:
        """Count params, bytes or (half of the) floating-point operations as they are, independent of any formula."""
        if figure == "macs":
            with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
                self.logits(model, count=1)
            return int(counter.get_total_flops())
        tensors = [*model.parameters(), *(model.buffers() if figure == "size" else ())]
        return sum(t.numel() * (t.element_size() if figure == "size" else 1) for t in tensors)

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
def trained(trained_on_digits: Callable[[int], nn.Module]) -> nn.Module:
    return trained_on_digits(128)
