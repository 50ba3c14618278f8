"""The whole plugin contract: the hooks a plugin may implement. Mark an implementation with ``@pah_opt.hookimpl``.

A plugin is a module (or object) named by an entry point in the group ``pah_opt``; the library's own strategies are
found the same way. A module may set ``pah_opt_api_version = 1``; another major version is refused, with both numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.layout import ModelAdapter
    from pah_opt.metric import Metric
    from pah_opt.optimizer import AnyOptimizer
    from pah_opt.recipe import Recipe

PROJECT = "pah_opt"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def pah_opt_optimizers() -> Iterable[AnyOptimizer]:  # type: ignore[empty-body]  # a spec has no body
    """Return the strategies this plugin adds."""


@hookspec
def pah_opt_model_adapters() -> Iterable[ModelAdapter]:  # type: ignore[empty-body]  # a spec has no body
    """Return adapters for families of models; the first that matches a model is used, built-in ones last."""


@hookspec
def pah_opt_metrics() -> Iterable[Metric]:  # type: ignore[empty-body]  # a spec has no body
    """Return figures to add to every report."""


@hookspec
def pah_opt_presets() -> Iterable[Recipe]:  # type: ignore[empty-body]  # a spec has no body
    """Return named recipes to ship with the plugin."""
