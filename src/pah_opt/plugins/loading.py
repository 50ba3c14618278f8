"""Loading plugins one by one: import, registration and each hook call are guarded apart, so none stops the host."""

from __future__ import annotations

import inspect
import logging
import sys
import traceback
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any

import pluggy

from pah_opt import hookspecs
from pah_opt.errors import PluginError, nearest_name
from pah_opt.hookspecs import PROJECT
from pah_opt.optimizer import API_VERSION
from pah_opt.plugins.contract import CHECKS, checked_items
from pah_opt.plugins.discovery import Candidate, choose, installed, named_in_environment, wanted
from pah_opt.plugins.origin import LeftOutPlugin, LoadedPlugin, Origin, Plugins
from pah_opt.plugins.registered import registered_plugins

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_LOG = logging.getLogger("pah_opt.plugins")


def load_plugins(
    *, without: Iterable[str] = (), extra: Mapping[str, object] | None = None, strict: bool = False
) -> Plugins:
    """Load the library's own plugins and every installed one that ``PAH_OPT_PLUGINS`` allows.

    Args:
        without: names of plugins, or of distributions, to leave out; works on built-in ones as well.
        extra: more plugins by name, as :func:`~pah_opt.plugins.register` takes them.
        strict: raise for the first broken plugin instead of leaving it out; also refuse a plugin without any hook.

    Returns:
        What was loaded, what is broken, and what was not chosen.

    Raises:
        PluginError: ``PAH_OPT_PLUGINS`` or ``without`` names an unknown plugin; or ``strict``, and one is broken.
    """
    in_process = {**registered_plugins(), **(extra or {})}
    candidates = [*installed(), *(candidate_for(name, plugin) for name, plugin in in_process.items())]
    chosen, not_chosen = choose(candidates, named_in_environment(), without)
    results = [load_plugin(c, strict=True) if strict else _load_or_leave_out(c) for c in chosen]
    return Plugins(
        loaded=tuple(result for result in results if isinstance(result, LoadedPlugin)),
        left_out=tuple(result for result in results if isinstance(result, LeftOutPlugin)),
        not_chosen=tuple(c.origin for c in not_chosen),
    )


def loaded_beside(name: str) -> Iterator[LoadedPlugin]:
    """Yield every plugin that loads beside one registered under ``name``, which replaces an earlier one of that name.

    Broken ones are passed over in silence: whoever loads the registry logs them.
    """
    others = [candidate_for(each, plugin) for each, plugin in registered_plugins().items() if each != name]
    for candidate in [*installed(), *others]:
        if wanted(candidate.origin, named_in_environment()):
            with suppress(PluginError):
                yield load_plugin(candidate)


def _load_or_leave_out(candidate: Candidate) -> LoadedPlugin | LeftOutPlugin:
    try:
        return load_plugin(candidate)
    except PluginError as error:
        return leave_out(candidate.origin, error)


def candidate_for(name: str, plugin: object) -> Candidate:
    """Return the candidate for a plugin that is an object in this process."""
    return Candidate(Origin(name), lambda: plugin)


def leave_out(origin: Origin, error: PluginError) -> LeftOutPlugin:
    """Record a broken plugin, and say so once in the log."""
    _LOG.warning("%s; it is left out (details: pah-opt plugins)", error)
    return LeftOutPlugin(origin, error, "".join(traceback.format_exception(error.__cause__ or error)))


def load_plugin(candidate: Candidate, *, strict: bool = False) -> LoadedPlugin:
    """Import one plugin, check it against the contract, and call each of its hooks.

    Raises:
        PluginError: says what is wrong, and chains the plugin's own exception.
    """
    with _guard(candidate.origin, "its import failed"):
        plugin = candidate.load()
    with _guard(candidate.origin, "it breaks the plugin contract"):
        _check_plugin(plugin)
        manager = pluggy.PluginManager(PROJECT)  # one for each plugin: a failed registration leaves nothing behind
        manager.add_hookspecs(hookspecs)
        manager.register(plugin, candidate.origin.name)
        hooks = list(_hooks(manager, plugin, strict=strict))
    items: dict[str, tuple[Any, ...]] = dict.fromkeys(CHECKS, ())
    for name, implementation in hooks:
        with _guard(candidate.origin, f"its hook {name} failed"):
            items[name] = checked_items(name, implementation.function())
    return LoadedPlugin(candidate.origin, *(items[name] for name in CHECKS))


@contextmanager
def _guard(origin: Origin, doing: str) -> Iterator[None]:
    """Turn whatever a plugin raises, ``sys.exit()`` included, into a PluginError that names it.

    What it prints goes to standard error: standard output belongs to results, such as ``pah-opt list --json``.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        cause = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
        raise PluginError(f"plugin {origin}: {doing}: {cause}") from error


def _check_plugin(plugin: object) -> None:
    if plugin is None or isinstance(plugin, type):
        raise PluginError(f"a plugin is a module or an object with hooks, got {plugin!r}")
    version = getattr(plugin, "pah_opt_api_version", API_VERSION)
    if version != API_VERSION:
        raise PluginError(
            f"it is written for version {version!r} of the plugin contract, this pah-opt has version {API_VERSION}; "
            "install matching versions of both"
        )
    for name, _ in inspect.getmembers(plugin, inspect.isroutine):
        marked = pluggy.PluginManager(PROJECT).parse_hookimpl_opts(plugin, name)
        if name.startswith(f"{PROJECT}_") and marked is None:
            raise PluginError(f"function {name}() is not marked with @pah_opt.hookimpl, so it would never be called")


def _hooks(manager: pluggy.PluginManager, plugin: object, *, strict: bool) -> Iterator[tuple[str, pluggy.HookImpl]]:
    """Yield the plugin's hooks by name; refuse those that the contract does not know."""
    callers = manager.get_hookcallers(plugin) or []
    if strict and not callers:
        raise PluginError(f"it implements no hook; hooks: {', '.join(CHECKS)}")
    for caller in callers:
        for implementation in caller.get_hookimpls():
            if caller.name not in CHECKS:
                nearest = nearest_name(caller.name, CHECKS)
                hint = f"did you mean {nearest!r}? " if nearest else ""
                raise PluginError(f"there is no hook {caller.name!r}; {hint}hooks: {', '.join(CHECKS)}")
            if implementation.hookwrapper or implementation.wrapper:
                raise PluginError(f"{caller.name} is a wrapper; hooks of pah_opt only return what the plugin adds")
            yield caller.name, implementation
