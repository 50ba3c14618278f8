"""The command line, run inside this process with a small plugin of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest
from click.testing import CliRunner, Result
from pydantic import Field

import pah_opt
from pah_opt import Effect, Needs, Optimizer, OptimizerConfig, Recipe, Step
from pah_opt.cli import main
from pah_opt.environment import Backend
from pah_opt.plugins import register, unregister

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class ShrinkConfig(OptimizerConfig):
    ratio: float = Field(0.5, gt=0, lt=1)
    """Share of the widths that goes; a long explanation wraps below its parameter without breaking any word apart."""
    importance: Literal["taylor", "l1"]
    """How widths are compared."""


class Shrink(Optimizer[ShrinkConfig]):
    name = "cli-shrink"
    config_type = ShrinkConfig
    summary = "Shrinks a model for these tests, and says so in a sentence that is longer than one line."
    goal = "both"
    references = ("arXiv 2301.12900",)

    def apply(self, model: Any, config: Any, context: Any) -> Any:
        return model

    def expects(self, config: Any) -> Effect:
        return Effect()


class Never(Shrink):
    name = "cli-never"
    config_type = OptimizerConfig
    summary = "Runs nowhere."
    goal = "memory"
    backends = (Backend("no-such-library", ">=2", "pip install 'pah-opt[never]'"),)

    def needs(self, config: Any) -> Needs:
        return Needs(calibration=True)


class Plugin:
    @pah_opt.hookimpl
    def pah_opt_optimizers(self) -> list[Any]:
        return [Shrink(), Never()]

    @pah_opt.hookimpl
    def pah_opt_presets(self) -> list[Recipe]:
        return [Recipe(name="cli-half", description="Half.", steps=[Step.of("cli-shrink", importance="l1")])]


@pytest.fixture(autouse=True)
def _plugin() -> Iterator[None]:
    register(Plugin(), "cli-tests")
    yield
    unregister("cli-tests")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run ``pah-opt`` with arguments, in 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *arguments: CliRunner().invoke(main, arguments)
