"""What commands share: examples under the options, options in groups, and names that complete when TAB is pressed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pah_opt.errors import PahOptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

    from pah_opt.registry import Registry

Decorator: TypeAlias = "Callable[[Callable[..., Any]], Callable[..., Any]]"
AS_IT_IS = "\b\n"
"""Keeps click from wrapping the lines of a paragraph."""
RECIPES = (".yaml", ".yml", ".json")


def examples(*commands: str) -> str:
    """Return the end of a command's help: commands to copy, each of at most 76 characters."""
    return AS_IT_IS + "\n".join(("Examples:", *(f"  {command}" for command in commands)))


def with_options(*options: Decorator) -> Decorator:
    """Return a decorator that adds options, or groups of them, in the order in which help shows them."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def complete_strategies(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the strategies whose names begin so."""
    return _beginning(incomplete, (name for registry in _registries() for name in registry.optimizers))


def complete_presets(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the presets whose names begin so."""
    return _beginning(incomplete, (name for registry in _registries() for name in registry.presets))


def complete_recipes(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the presets, files of recipes and folders whose names begin so; a folder's name ends with a slash."""
    folder = incomplete[: incomplete.rfind("/") + 1]
    paths: list[str] = []
    with suppress(OSError):  # a folder that cannot be listed has nothing to offer
        for path in sorted(Path(folder or ".").iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                paths.append(f"{folder}{path.name}/")
            elif path.suffix in RECIPES:
                paths.append(folder + path.name)
    return [*complete_presets(ctx, parameter, incomplete), *_beginning(incomplete, paths)]


def _registries() -> list[Registry]:
    """Return the registry, or none: an error has no place in a completion, and the command itself will say it."""
    from pah_opt.registry import default_registry

    with suppress(PahOptError):
        return [default_registry()]
    return []


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
