"""Plugins as they are in the wild: real distributions, with metadata and entry points, on ``sys.path``."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
import pah_opt
from pah_opt import Effect, Optimizer, OptimizerConfig


class Config(OptimizerConfig):
    ratio: float = 0.5


class Shrink(Optimizer[Config]):
    name = "NAME"
    config_type = Config
    summary = "Shrinks."
    goal = "memory"

    def apply(self, model, config, context):
        return model

    def expects(self, config):
        return Effect(fewer_bytes=True)


@pah_opt.hookimpl
def pah_opt_optimizers():
    return [Shrink()]
"""
"""Source of a plugin that works; ``NAME`` stands for its strategy's name."""

Install = Callable[..., None]


@pytest.fixture
def good() -> Callable[[str], str]:
    """Make the source of a plugin that brings one strategy of the given name."""
    return lambda name: GOOD.replace("NAME", name)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution ``name`` whose entry point ``plugin`` names a module with this source."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.delenv("PAH_OPT_PLUGINS", raising=False)

    def write(name: str, source: str, *, plugin: str | None = None, version: str = "1.0", attribute: str = "") -> None:
        module = name.replace("-", "_")
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[pah_opt]\n{plugin or name} = {module}{attribute}\n")
        sys.modules.pop(module, None)
        importlib.invalidate_caches()

    return write


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The folder that ``install`` writes to."""
    return tmp_path / "site"
