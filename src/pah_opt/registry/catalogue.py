"""Registry: the names that loaded plugins bring, each with where it comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from pah_opt.errors import Place, Problem, RecipeError, UnknownOptimizerError, nearest_name
from pah_opt.plugins import LeftOutPlugin, LoadedPlugin, Origin, Plugins, leave_out
from pah_opt.plugins.clashes import Name, clash, names_of
from pah_opt.recipe.sources import as_recipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pah_opt.layout import ModelAdapter
    from pah_opt.metric import Metric
    from pah_opt.optimizer import AnyOptimizer
    from pah_opt.recipe import Recipe
    from pah_opt.recipe.sources import RecipeSource

T = TypeVar("T")
ALIASES = {"2:4": "two-four"}
"""Other names of presets, for those who write them as they are spoken of."""
_BARE_NAME = re.compile(r"[\w-]+")
"""What may be meant as the name of a preset: no path, no suffix, no text of a recipe."""


@dataclass(frozen=True)
class RegisteredOptimizer:
    """An Optimizer and where it comes from.

    Args:
        optimizer: the strategy.
        origin: the plugin that brings it.
    """

    optimizer: AnyOptimizer
    origin: Origin

    @property
    def plugin(self) -> str:
        """Name of the plugin."""
        return self.origin.name

    @property
    def distribution(self) -> str | None:
        """Installed distribution of the plugin, None for one registered in this process."""
        return self.origin.distribution

    @property
    def version(self) -> str | None:
        """Version of that distribution."""
        return self.origin.version


@dataclass(frozen=True)
class Registry:
    """Everything the loaded plugins bring, by name.

    Args:
        optimizers: strategies, in the order of their plugins (built-in ones first).
        adapters: those of other distributions first, so that they can take over a family of models; built-in ones last.
        metrics: additional figures for reports.
        presets: named recipes.
        plugins: what became of each plugin; those that clash with an earlier one are among the ones left out.
    """

    optimizers: Mapping[str, RegisteredOptimizer] = field(default_factory=dict)
    adapters: tuple[ModelAdapter, ...] = ()
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    presets: Mapping[str, Recipe] = field(default_factory=dict)
    plugins: Plugins = field(default_factory=Plugins)

    @classmethod
    def of(cls, plugins: Plugins, *, strict: bool = False) -> Registry:
        """Collect what plugins bring. The first of two with the same name stays; the later plugin is left out whole.

        Raises:
            DuplicateOptimizerError: ``strict``, and two plugins bring the same name.
        """
        loaded, clashing = _without_clashes(plugins.loaded, strict=strict)
        adapters_of = [p for p in loaded if not p.origin.built_in] + [p for p in loaded if p.origin.built_in]
        return cls(
            MappingProxyType({o.name: RegisteredOptimizer(o, p.origin) for p in loaded for o in p.optimizers}),
            tuple(adapter for plugin in adapters_of for adapter in plugin.adapters),
            MappingProxyType({metric.name: metric for plugin in loaded for metric in plugin.metrics}),
            MappingProxyType({preset.name: preset for plugin in loaded for preset in plugin.presets}),
            replace(plugins, loaded=loaded, left_out=(*plugins.left_out, *clashing)),
        )

    def get(self, name: str) -> RegisteredOptimizer:
        """Return the Optimizer of that name.

        Raises:
            UnknownOptimizerError: no loaded plugin brings it; names the nearest one.
        """
        if name not in self.optimizers:
            raise UnknownOptimizerError([self.unknown(name)], "unknown strategy")
        return self.optimizers[name]

    def recipe(self, source: RecipeSource) -> Recipe:
        """Return the preset of that name; otherwise read the recipe from a file or text.

        Raises:
            RecipeError: it is neither, or cannot be read; lists every problem with its line.
        """
        if isinstance(source, str) and self._may_name_a_preset(source):
            return self.preset(source)
        return as_recipe(source)

    def _may_name_a_preset(self, source: str) -> bool:
        named = source in self.presets or source in ALIASES or bool(_BARE_NAME.fullmatch(source))
        return named and not Path(source).is_file()

    def preset(self, name: str) -> Recipe:
        """Return the preset of that name.

        Raises:
            RecipeError: there is none; names the nearest one.
        """
        name = ALIASES.get(name, name)
        if name not in self.presets:
            known = ", ".join(self.presets) or "none is installed"
            message = f"there is no preset {name!r}, nor a file of that name"
            problem = Problem(message, allowed=known, nearest=nearest_name(name, self.presets))
            raise RecipeError([problem], "unknown preset")
        return self.presets[name]

    def unknown(self, name: str, place: Place = Place()) -> Problem:  # noqa: B008  # Place is frozen
        """Describe a name that no loaded plugin brings: the nearest one, what there is, and plugins left out."""
        return Problem(
            f"there is no strategy {name!r}", place, ", ".join(self.optimizers) or "none is installed",
            nearest_name(name, self.optimizers), self._absent_plugins(),
        )  # fmt: skip

    def _absent_plugins(self) -> str | None:
        absent = [left.origin.name for left in self.plugins.left_out] + [o.name for o in self.plugins.not_chosen]
        return f"plugins not loaded: {', '.join(absent)} (see pah-opt plugins)" if absent else None

    @property
    def plugin_versions(self) -> dict[str, str]:
        """Versions of the distributions that bring plugins, the library itself left out."""
        origins = [plugin.origin for plugin in self.plugins.loaded if not plugin.origin.built_in]
        return {o.distribution: o.version or "unknown" for o in origins if o.distribution}


def _without_clashes(
    plugins: Iterable[LoadedPlugin], *, strict: bool
) -> tuple[tuple[LoadedPlugin, ...], tuple[LeftOutPlugin, ...]]:
    kept: list[LoadedPlugin] = []
    clashing: list[LeftOutPlugin] = []
    owners: dict[Name, Origin] = {}
    for plugin in plugins:
        error = clash(plugin, owners, "uninstall one of them, or leave one out with --no-plugin")
        if error is None:
            kept.append(plugin)
            owners.update(dict.fromkeys(names_of(plugin), plugin.origin))
        elif strict:
            raise error
        else:
            clashing.append(leave_out(plugin.origin, error))
    return tuple(kept), tuple(clashing)
