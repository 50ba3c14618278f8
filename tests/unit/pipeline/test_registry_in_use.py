"""The registry that a call is given is what strategies and the calls that they make find."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from torch import nn

import pah_opt
from pah_opt import Context, Effect, Optimizer, OptimizerConfig
from pah_opt.artifact.saving import save
from pah_opt.plugins import load_plugins
from pah_opt.registry import Registry, default_registry
from pah_opt.testing import tiny_vit


class LooksUp(Optimizer[OptimizerConfig]):
    """Notes, at every occasion, which registry it finds."""

    name = "looks-up"
    config_type = OptimizerConfig
    summary = "Look the registry up."
    goal = "memory"
    found: ClassVar[list[object]] = []

    def apply(self, model: nn.Module, config: OptimizerConfig, context: Context) -> nn.Module:
        self.found.append(default_registry())
        return model

    def expects(self, config: OptimizerConfig) -> Effect:
        return Effect()

    def state(self, model: nn.Module, config: OptimizerConfig) -> dict[str, Any]:
        return {"kept": True}

    def restore(self, model: nn.Module, state: dict[str, Any]) -> nn.Module:
        self.found.append(default_registry())
        return model

    def finish(self, model: nn.Module, state: dict[str, Any]) -> nn.Module:
        self.found.append(default_registry())
        return model


def test_strategies_find_the_registry_that_was_given(tmp_path: Path) -> None:
    class Plugin:
        @pah_opt.hookimpl
        def pah_opt_optimizers(self) -> list[Any]:
            return [LooksUp()]

    own = Registry.of(load_plugins(extra={"mine": Plugin()}), strict=True)
    artifact = pah_opt.apply(tiny_vit(), pah_opt.Recipe(steps=[pah_opt.Step.of("looks-up")]), registry=own)
    save(artifact, tmp_path / "artifact", registry=own)
    pah_opt.load(tmp_path / "artifact", registry=own)
    assert len(LooksUp.found) >= 4  # planned, run, restored, finished
    assert all(found is own for found in LooksUp.found)
    assert default_registry() is not own
