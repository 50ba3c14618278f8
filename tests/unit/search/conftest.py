"""A tiny model that is always right about its own images, and strategies that crash and run out of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import pah_opt
from pah_opt import plugins
from pah_opt.data import TensorSplit
from pah_opt.optimizer import AnyOptimizer, Context, Effect, Optimizer, OptimizerConfig
from pah_opt.registry import default_registry
from pah_opt.search import Budget
from pah_opt.search.inputs import cut
from pah_opt.search.judge import Judge
from pah_opt.splits import Data
from pah_opt.testing import tiny_vit

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("optuna", reason="optuna is not installed: pip install 'pah-opt[search]'")


class MisbehavingConfig(OptimizerConfig):
    """How to misbehave."""

    how: str = "well"
    """`well`, `crash`, `memory` or `interrupt`."""
    strength: float = 0.1
    """Nothing depends on it."""


class Misbehaving(Optimizer[MisbehavingConfig]):
    """Fails on real models only."""

    name = "misbehaving"
    config_type = MisbehavingConfig
    summary = "Fail on request."
    goal = "memory"

    def apply(self, model: nn.Module, config: MisbehavingConfig, context: Context) -> nn.Module:
        errors = {"crash": ZeroDivisionError("kaput"), "interrupt": KeyboardInterrupt(),
                  "memory": RuntimeError("DefaultCPUAllocator: not enough memory")}  # fmt: skip
        if not context.planning and config.how in errors:
            raise errors[config.how]
        return model

    def expects(self, config: MisbehavingConfig) -> Effect:
        return Effect()


class Plugin:
    """Brings it."""

    @pah_opt.hookimpl
    def pah_opt_optimizers(self) -> list[AnyOptimizer]:
        return [Misbehaving()]


@pytest.fixture(autouse=True, scope="package")
def misbehaving() -> Iterator[None]:
    plugins.register(Plugin(), name="misbehaving-search")
    yield
    plugins.unregister("misbehaving-search")


@pytest.fixture(scope="package")
def model() -> nn.Module:
    """A model whose answers differ from image to image."""
    made = tiny_vit(image=16, hidden=32)
    with torch.no_grad():
        made.classifier.bias -= made(images()).logits.mean(dim=0)
    return made


def images() -> torch.Tensor:
    return torch.randn(480, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="package")
def data(model: nn.Module) -> Data:
    """Images labelled with the model's own answers: the dense model is always right, a changed one is not."""
    pixels = images()
    with torch.inference_mode():
        labels = model(pixels).logits.argmax(dim=1)
    names = tuple(map(str, range(10)))
    parts = [TensorSplit(pixels[rows], labels[rows], names, f"own answers {rows}") for rows in
             (slice(0, 400), slice(400, 480))]  # fmt: skip
    return Data(test=parts[1], train=parts[0])


@pytest.fixture(scope="package")
def judge(model: nn.Module, data: Data) -> Judge:
    """A judge that measures latency too, prepared."""
    made = Judge(model, *cut(data, 120, 0), Budget(minimise="latency", top1_drop_pp=50), calibration_images=16)
    made.prepare()
    return made


@pytest.fixture
def registry() -> pah_opt.registry.Registry:  # type: ignore[name-defined]  # the lazily imported room
    return default_registry()
