"""Plugins that are objects in this process: for notebooks, tests, and a plugin that is one file."""

from __future__ import annotations

_registered: dict[str, object] = {}
_changes = 0


def registered_plugins() -> dict[str, object]:
    """Return the plugins registered in this process, by name."""
    return dict(_registered)


def registrations() -> int:
    """Return a number that changes with every registration; caches of what plugins bring compare it."""
    return _changes


def remember(name: str, plugin: object) -> None:
    """Keep a plugin under a name; an earlier one of that name is replaced."""
    _registered[name] = plugin
    _count()


def forget(name: str) -> None:
    """Drop the plugin of that name, if there is one."""
    _registered.pop(name, None)
    _count()


def _count() -> None:
    global _changes  # noqa: PLW0603  # one process, one set of registrations
    _changes += 1
