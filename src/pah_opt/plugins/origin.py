"""Where a plugin comes from, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pah_opt.errors import PluginError
    from pah_opt.layout import ModelAdapter
    from pah_opt.metric import Metric
    from pah_opt.optimizer import AnyOptimizer
    from pah_opt.recipe import Recipe

BUILT_IN = "pah-opt"
"""The distribution whose plugins load first and are there whatever ``PAH_OPT_PLUGINS`` says."""


@dataclass(frozen=True)
class Origin:
    """Where a plugin comes from.

    Args:
        name: the entry point's name; what ``--no-plugin`` and ``PAH_OPT_PLUGINS`` take.
        distribution: the installed distribution that brings it; None for a plugin registered in this process.
        version: that distribution's version.
        target: what the entry point names, such as ``my_package.plugin``.
    """

    name: str
    distribution: str | None = None
    version: str | None = None
    target: str | None = None

    @property
    def built_in(self) -> bool:
        """Whether the library itself brings it."""
        return self.distribution == BUILT_IN

    @property
    def names(self) -> frozenset[str]:
        """The names by which a user may choose it: its own and its distribution's."""
        return frozenset({self.name, self.distribution or self.name})

    def __str__(self) -> str:
        """Render as ``'name' (distribution 1.0)``."""
        parts = [part for part in (self.distribution, self.version) if part]
        return f"{self.name!r} ({' '.join(parts) or 'registered in this process'})"


@dataclass(frozen=True)
class LoadedPlugin:
    """A plugin that loaded, with what it adds."""

    origin: Origin
    optimizers: tuple[AnyOptimizer, ...] = ()
    adapters: tuple[ModelAdapter, ...] = ()
    metrics: tuple[Metric, ...] = ()
    presets: tuple[Recipe, ...] = ()


@dataclass(frozen=True)
class LeftOutPlugin:
    """A plugin that is broken and was left out.

    Args:
        origin: where it comes from.
        error: what is wrong with it.
        traceback: that of the plugin's own exception, as text.
    """

    origin: Origin
    error: PluginError
    traceback: str


@dataclass(frozen=True)
class Plugins:
    """Every plugin that was found, by what became of it.

    Args:
        loaded: built-in plugins first, then the others by name.
        left_out: the broken ones.
        not_chosen: those that ``PAH_OPT_PLUGINS`` or ``--no-plugin`` leaves out.
    """

    loaded: tuple[LoadedPlugin, ...] = ()
    left_out: tuple[LeftOutPlugin, ...] = ()
    not_chosen: tuple[Origin, ...] = ()
