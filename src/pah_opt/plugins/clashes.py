"""Names that two plugins bring: the first plugin keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.errors import DuplicateOptimizerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pah_opt.layout import ModelAdapter
    from pah_opt.metric import Metric
    from pah_opt.optimizer import AnyOptimizer
    from pah_opt.plugins.origin import LoadedPlugin, Origin
    from pah_opt.recipe import Recipe

Name = tuple[str, str]
"""A kind, such as strategy, and a name of that kind."""


def names_of(plugin: LoadedPlugin) -> list[Name]:
    """Return every name that a plugin brings, with its kind."""
    groups: dict[str, tuple[AnyOptimizer | ModelAdapter | Metric | Recipe, ...]] = {
        "strategy": plugin.optimizers, "adapter": plugin.adapters, "metric": plugin.metrics, "preset": plugin.presets,
    }  # fmt: skip
    return [(kind, item.name) for kind, items in groups.items() for item in items]


def clash(plugin: LoadedPlugin, owners: Mapping[Name, Origin], remedy: str) -> DuplicateOptimizerError | None:
    """Return what is wrong when a plugin brings a name that has an owner; None when it brings none.

    Args:
        plugin: the plugin.
        owners: names that others bring, each with its plugin.
        remedy: what to do then.
    """
    taken = [(kind, name, owners[kind, name]) for kind, name in names_of(plugin) if (kind, name) in owners]
    if not taken:
        return None
    clashes = "; ".join(f"the {kind} {name!r} is already brought by plugin {owner}" for kind, name, owner in taken)
    return DuplicateOptimizerError(f"plugin {plugin.origin}: {clashes}; {remedy}")
