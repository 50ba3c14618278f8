"""The registry of everything installed, loaded once."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pah_opt.plugins import load_plugins, registrations
from pah_opt.plugins.discovery import ENVIRONMENT_VARIABLE, installed
from pah_opt.registry.catalogue import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_without: tuple[str, ...] = ()
_in_use: ContextVar[Registry | None] = ContextVar("the registry that a call in progress was given", default=None)


def default_registry() -> Registry:
    """Return the registry of every plugin that is installed, registered in this process, and chosen.

    While :func:`pah_opt.apply`, :func:`pah_opt.plan` or :func:`pah_opt.load` runs strategies with a registry that it
    was given, it is that one, so that what a strategy looks up or calls finds the same.

    Loaded once; again after a registration, a change of ``PAH_OPT_PLUGINS``, or :func:`reset_default_registry`.

    Raises:
        PluginError: ``PAH_OPT_PLUGINS`` or ``--no-plugin`` names a plugin that is not there.
    """
    given = _in_use.get()
    return given if given is not None else _load(_without, os.environ.get(ENVIRONMENT_VARIABLE), registrations())


@lru_cache(maxsize=1)
def _load(without: tuple[str, ...], _only: str | None, _registrations: int) -> Registry:
    return Registry.of(load_plugins(without=without))


def strict_registry() -> Registry:
    """Return the same registry as :func:`default_registry`, freshly loaded, refusing every broken plugin.

    Raises:
        PluginError: the first plugin that is broken, brings nothing, or clashes with another.
    """
    return Registry.of(load_plugins(without=_without, strict=True), strict=True)


def reset_default_registry() -> None:
    """Forget the loaded registry: distributions installed since then are found at the next use."""
    _load.cache_clear()


@contextmanager
def using_registry(registry: Registry) -> Iterator[None]:
    """Have :func:`default_registry` return ``registry`` inside the block."""
    token = _in_use.set(registry)
    try:
        yield
    finally:
        _in_use.reset(token)


@dataclass(frozen=True)
class Chosen:
    """Which plugins a process chooses; sent along with work, so that another process chooses the same.

    Args:
        without: names to leave out, as ``--no-plugin`` does.
        only: what ``PAH_OPT_PLUGINS`` says; None where it is not set.
    """

    without: tuple[str, ...] = ()
    only: str | None = None

    @classmethod
    def here(cls) -> Chosen:
        """Return what this process chooses."""
        return cls(_without, os.environ.get(ENVIRONMENT_VARIABLE))

    @contextmanager
    def used(self) -> Iterator[None]:
        """Have :func:`default_registry` choose the same inside the block, and the processes that are started there.

        A plugin that is to be left out and is not installed here at all is left out already.
        """
        known = {name for candidate in installed() for name in candidate.origin.names} if self.without else set()
        with _environment(self.only), default_without(name for name in self.without if name in known):
            yield


@contextmanager
def _environment(only: str | None) -> Iterator[None]:
    before = os.environ.get(ENVIRONMENT_VARIABLE)
    _set_variable(only)
    try:
        yield
    finally:
        _set_variable(before)


def _set_variable(value: str | None) -> None:
    if value is None:
        os.environ.pop(ENVIRONMENT_VARIABLE, None)
    else:
        os.environ[ENVIRONMENT_VARIABLE] = value


@contextmanager
def default_without(names: Iterable[str]) -> Iterator[None]:
    """Leave plugins out of :func:`default_registry` inside the block."""
    global _without  # noqa: PLW0603  # the default registry is one per process
    before, _without = _without, tuple(names)
    try:
        yield
    finally:
        _without = before
