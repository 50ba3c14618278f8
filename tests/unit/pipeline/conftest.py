"""Small strategies that behave, and some that do not, registered like any plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import pah_opt
from pah_opt import plugins
from pah_opt.optimizer import FRESH_TAGS, AnyOptimizer, Context, Effect, Needs, Optimizer, OptimizerConfig, Tags
from pah_opt.testing import tiny_vit

if TYPE_CHECKING:
    from collections.abc import Iterator


class ScaleConfig(OptimizerConfig):
    """Parameters of the strategies below."""

    factor: float = 1.0
    """Weights are multiplied by it."""


class Scale(Optimizer[ScaleConfig]):
    """Multiplies the first projection by a factor plus seeded noise; keeps shapes."""

    name = "scale"
    config_type = ScaleConfig
    summary = "Scale one weight."
    goal = "memory"

    def apply(self, model: nn.Module, config: ScaleConfig, context: Context) -> nn.Module:
        layout = context.adapter.layout(model)
        weight = model.get_submodule(layout.blocks[0].mlp.fc1).weight
        with torch.no_grad():
            weight.mul_(config.factor).add_(torch.randn(weight.shape, device=weight.device), alpha=1e-3)
        context.record("factor", config.factor)
        return model

    def expects(self, config: ScaleConfig) -> Effect:
        return Effect()


class Nothing(Scale):
    """Promises fewer parameters and removes none."""

    name = "nothing"
    summary = "Do nothing."

    def apply(self, model: nn.Module, config: ScaleConfig, context: Context) -> nn.Module:
        return model

    def expects(self, config: ScaleConfig) -> Effect:
        return Effect(fewer_parameters=True)


class Raises(Scale):
    """Works on the meta device and fails on a real one."""

    name = "raises"
    summary = "Fail."

    def apply(self, model: nn.Module, config: ScaleConfig, context: Context) -> nn.Module:
        if context.planning:
            return model
        super().apply(model, config, context)
        raise ZeroDivisionError("kaput")


class Interrupted(Scale):
    """Is stopped by ctrl-C in the middle."""

    name = "interrupted"
    summary = "Be interrupted."

    def apply(self, model: nn.Module, config: ScaleConfig, context: Context) -> nn.Module:
        model = super().apply(model, config, context)
        if not context.planning:
            raise KeyboardInterrupt
        return model


class Poison(Scale):
    """Leaves NaN logits."""

    name = "poison"
    summary = "Leave NaN."

    def apply(self, model: nn.Module, config: ScaleConfig, context: Context) -> nn.Module:
        with torch.no_grad():
            model.get_submodule(context.adapter.layout(model).blocks[0].mlp.fc1).weight.mul_(float("nan"))
        return model


class Lies(Scale):
    """Changes an attribute behind the model's back."""

    name = "lies"
    summary = "Leave a false attribute."

    def apply(self, model: nn.Module, config: ScaleConfig, context: Context) -> nn.Module:
        attention = model.get_submodule(context.adapter.layout(model).blocks[0].attention.path)
        attention.num_attention_heads += 1
        return model


class Shrinks(Scale):
    """Changes shapes and promises to keep them."""

    name = "shrinks"
    summary = "Change shapes without saying so."

    def apply(self, model: nn.Module, config: ScaleConfig, context: Context) -> nn.Module:
        block = context.adapter.layout(model).blocks[0]
        first, second = model.get_submodule(block.mlp.fc1), model.get_submodule(block.mlp.fc2)
        first.weight, first.bias = nn.Parameter(first.weight[:8]), nn.Parameter(first.bias[:8])
        second.weight = nn.Parameter(second.weight[:, :8])
        first.out_features = second.in_features = 8
        context.adapter.sync(model)
        return model


class Ruin(Scale):
    """Sends every image to one class."""

    name = "ruin"
    summary = "Bring the model to chance."

    def apply(self, model: nn.Module, config: ScaleConfig, context: Context) -> nn.Module:
        head = model.get_submodule(context.adapter.layout(model).classifiers[0])
        with torch.no_grad():
            head.weight.zero_()
        return model


class Undeclared(Scale):
    """Cannot say what it promises."""

    name = "undeclared"
    summary = "Fail to declare."

    def expects(self, config: ScaleConfig) -> Effect:
        raise KeyError("promise")


class Unsaved(Scale):
    """Cannot say what it takes to be loaded again."""

    name = "unsaved"
    summary = "Fail to give its state."

    def state(self, model: nn.Module, config: ScaleConfig) -> dict[str, Any]:
        raise KeyError("state")


class Unusable(Scale):
    """Leaves a model that cannot be run."""

    name = "unusable"
    summary = "Break the forward pass."

    def apply(self, model: nn.Module, config: ScaleConfig, context: Context) -> nn.Module:
        if not context.planning:
            fc1 = model.get_submodule(context.adapter.layout(model).blocks[0].mlp.fc1)
            fc1.bias = nn.Parameter(fc1.bias[:3])
        return model


class Freeze(Scale):
    """Takes a tag away, so that nothing that needs it may follow."""

    name = "freeze"
    summary = "Remove a state tag."

    def tags(self, config: ScaleConfig) -> Tags:
        return Tags(requires=FRESH_TAGS, removes=frozenset({"weights:float"}), provides=frozenset({"frozen"}))


class Watches(Scale):
    """Looks at calibration images and records which."""

    name = "watches"
    summary = "Record what it was given."

    def needs(self, config: ScaleConfig) -> Needs:
        return Needs(calibration=True)

    def apply(self, model: nn.Module, config: ScaleConfig, context: Context) -> nn.Module:
        if context.calibration is not None:
            context.record("images", len(context.calibration))
        return super().apply(model, config, context)


STRATEGIES: tuple[type[AnyOptimizer], ...] = (
    Scale, Nothing, Raises, Interrupted, Poison, Lies, Shrinks, Ruin, Undeclared, Unsaved, Unusable, Freeze, Watches,
)  # fmt: skip


class Plugin:
    """The plugin that brings them."""

    @pah_opt.hookimpl
    def pah_opt_optimizers(self) -> list[AnyOptimizer]:
        return [strategy() for strategy in STRATEGIES]


@pytest.fixture(autouse=True, scope="module")
def strategies() -> Iterator[None]:
    plugins.register(Plugin(), name="misbehaving")
    yield
    plugins.unregister("misbehaving")


@pytest.fixture
def model() -> nn.Module:
    return tiny_vit()
