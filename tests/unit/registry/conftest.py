"""Strategies that only declare: what validation sees of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest
from pydantic import Field

from pah_opt import Effect, Needs, Optimizer, OptimizerConfig, Recipe, Step, Tags
from pah_opt.environment import Backend
from pah_opt.plugins import LoadedPlugin, Origin, Plugins
from pah_opt.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from pah_opt.optimizer import AnyOptimizer


class PruneConfig(OptimizerConfig):
    ratio: float = Field(0.5, gt=0, lt=1)
    """Share that goes."""
    scope: Literal["layer", "global"] = "layer"
    """Where weights are compared."""


class Prune(Optimizer[PruneConfig]):
    name = "prune"
    config_type = PruneConfig
    summary = "Removes what matters least."
    goal = "both"
    references = ("arXiv 1506.02626",)

    def apply(self, model: Any, config: Any, context: Any) -> Any:
        return model

    def expects(self, config: Any) -> Effect:
        return Effect()


class QuantizeConfig(OptimizerConfig):
    scheme: Literal["int8", "fp8", "static"]
    """Type of the weights."""


class Quantize(Optimizer[QuantizeConfig]):
    name = "quantize"
    config_type = QuantizeConfig
    summary = "Stores weights in fewer bits."
    goal = "memory"

    def apply(self, model: Any, config: Any, context: Any) -> Any:
        return model

    def expects(self, config: Any) -> Effect:
        return Effect()

    def tags(self, config: QuantizeConfig) -> Tags:
        gone = frozenset({"weights:float", "shapes:free"})
        return Tags(provides=frozenset({f"linear:{config.scheme}"}), removes=gone)

    def needs(self, config: QuantizeConfig) -> Needs:
        if config.scheme == "fp8":
            return Needs(cuda=True, capability=(8, 9), instead="use scheme: int8")
        return Needs(calibration=config.scheme == "static")

    def alignment(self, config: QuantizeConfig) -> int:
        return 16 if config.scheme == "fp8" else 64


class Train(Prune):
    name = "train"
    summary = "Trains."
    goal = "accuracy"

    def needs(self, config: Any) -> Needs:
        return Needs(training=True)

    def alignment(self, config: Any) -> int:
        return 48


class Pack(Prune):
    name = "pack"
    summary = "Packs what was stored in int8."
    backends = (Backend("no-such-library", ">=2", "pip install 'pah-opt[pack]'"),)

    def tags(self, config: Any) -> Tags:
        return Tags(requires=frozenset({"linear:int8", "graph:eager"}), removes=frozenset({"graph:eager"}))


@pytest.fixture
def prune() -> AnyOptimizer:
    return Prune()


@pytest.fixture
def changed() -> Callable[..., AnyOptimizer]:
    """Make a variant of ``prune`` with other members."""
    return lambda **members: type("Changed", (Prune,), members)()


@pytest.fixture
def plugin() -> Callable[..., LoadedPlugin]:
    """Make a loaded plugin."""

    def make(name: str, *optimizers: AnyOptimizer, distribution: str | None = None, **brings: Any) -> LoadedPlugin:
        return LoadedPlugin(Origin(name, distribution or f"{name}-dist", "1.0", name), optimizers, **brings)

    return make


@pytest.fixture
def registry(plugin: Callable[..., LoadedPlugin]) -> Registry:
    preset = Recipe(name="half", description="Half of it.", steps=[Step.of("prune", ratio=0.5)])
    loaded = plugin("basics", Prune(), Quantize(), Train(), Pack(), presets=(preset,))
    return Registry.of(Plugins(loaded=(loaded,)))
