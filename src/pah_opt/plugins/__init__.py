"""Finding and loading plugins, one by one; a broken one is left out by name and never stops the host.

Plugins are found through the entry-point group ``pah_opt``. The library's own strategies are found the same way. Which
of them load is chosen with the environment variable ``PAH_OPT_PLUGINS`` (names to load besides the built-in ones,
separated by commas; empty for the built-in ones alone; not set for all) and ``pah-opt --no-plugin NAME``.
"""

from __future__ import annotations

from pah_opt.plugins.clashes import clash, names_of
from pah_opt.plugins.loading import candidate_for, leave_out, load_plugin, load_plugins, loaded_beside
from pah_opt.plugins.origin import BUILT_IN, LeftOutPlugin, LoadedPlugin, Origin, Plugins
from pah_opt.plugins.registered import forget, registrations, remember

__all__ = [
    "BUILT_IN",
    "LeftOutPlugin",
    "LoadedPlugin",
    "Origin",
    "Plugins",
    "leave_out",
    "load_plugins",
    "register",
    "registrations",
    "unregister",
]


def register(plugin: object, name: str | None = None) -> str:
    """Add a plugin that lives in this process, without an installed distribution.

    Args:
        plugin: a module or an object whose methods are marked with ``@pah_opt.hookimpl``.
        name: its name; by default the module's or the class's. A plugin registered under it before is replaced.

    Returns:
        The name.

    Raises:
        PluginError: the plugin is broken, or brings a name that another one brings; nothing was registered.
    """
    name = name or str(getattr(plugin, "__name__", type(plugin).__name__))
    loaded = load_plugin(candidate_for(name, plugin), strict=True)
    owners = {taken: other.origin for other in loaded_beside(name) for taken in names_of(other)}
    error = clash(loaded, owners, "give yours another name")
    if error is not None:
        raise error
    remember(name, plugin)
    return name


def unregister(name: str) -> None:
    """Take back :func:`register`."""
    forget(name)
