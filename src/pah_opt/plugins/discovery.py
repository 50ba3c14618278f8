"""Finding installed plugins, and choosing among them; imports none of them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from typing import TYPE_CHECKING

from pah_opt.errors import PluginError, nearest_name
from pah_opt.hookspecs import PROJECT
from pah_opt.plugins.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ENVIRONMENT_VARIABLE = "PAH_OPT_PLUGINS"


@dataclass(frozen=True)
class Candidate:
    """A plugin that was found: where it comes from, and how to get the object."""

    origin: Origin
    load: Callable[[], object]


def installed() -> list[Candidate]:
    """Return every installed plugin: the library's own first, then by name and distribution."""
    found = [candidate for distribution in _distributions() for candidate in _candidates(distribution)]
    return sorted(found, key=lambda c: (not c.origin.built_in, c.origin.name, c.origin.distribution or ""))


def _distributions() -> Iterator[Distribution]:
    """Yield each distribution with plugins once: the first on the path is the one that would be imported."""
    seen: set[str] = set()
    for distribution in distributions():
        if _mentions_us(distribution):
            name = _name(distribution)
            if name and name not in seen:
                seen.add(name)
                yield distribution


def _mentions_us(distribution: Distribution) -> bool:
    """Look for plugins in the text of entry points: cheaper than a distribution's metadata, which is parsed mail."""
    try:
        return PROJECT in (distribution.read_text("entry_points.txt") or "")
    except Exception:  # noqa: BLE001  # somebody else's file, which need not be text
        return False


def _candidates(distribution: Distribution) -> list[Candidate]:
    # importlib.metadata.entry_points() parses all distributions at once, so a single malformed file would raise for
    # all of them; here it only concerns its own distribution.
    try:
        points = [point for point in distribution.entry_points if point.group == PROJECT]
    except Exception as error:  # noqa: BLE001  # reported when it is loaded, under the distribution's name
        return [_broken(distribution, f"its entry_points.txt cannot be read ({type(error).__name__}: {error})")]
    return [Candidate(_origin(distribution, point.name, point.value), point.load) for point in points]


def _broken(distribution: Distribution, message: str) -> Candidate:
    def load() -> object:
        raise PluginError(message)

    return Candidate(_origin(distribution, _name(distribution) or "?", None), load)


def _origin(distribution: Distribution, name: str, target: str | None) -> Origin:
    return Origin(name, _name(distribution), _version(distribution), target)


def _name(distribution: Distribution) -> str | None:
    """Return the normalised name, or None for a folder that only looks like a distribution."""
    try:
        name: str | None = distribution.metadata["Name"]
    except Exception:  # noqa: BLE001  # leftovers of a failed uninstall have no metadata; pip ignores them too
        return None
    return None if name is None else re.sub(r"[-_.]+", "-", name).lower()


def _version(distribution: Distribution) -> str | None:
    try:
        return distribution.version
    except Exception:  # noqa: BLE001  # a missing version must not stop the plugin
        return None


def named_in_environment() -> frozenset[str] | None:
    """Return the names in ``PAH_OPT_PLUGINS``; None when it is not set, which means all."""
    value = os.environ.get(ENVIRONMENT_VARIABLE)
    return None if value is None else frozenset(name.strip() for name in value.split(",") if name.strip())


def choose(
    candidates: Iterable[Candidate], only: frozenset[str] | None, without: Iterable[str]
) -> tuple[list[Candidate], list[Candidate]]:
    """Split candidates into chosen and not chosen.

    Args:
        candidates: what was found.
        only: names to keep besides the built-in plugins and those registered in this process; None for all.
        without: names to leave out, of whatever kind.

    Raises:
        PluginError: a name belongs to no plugin.
    """
    candidates, without = list(candidates), frozenset(without)
    _check_known(only or (), candidates, ENVIRONMENT_VARIABLE)
    _check_known(without, candidates, "--no-plugin")
    chosen = [c for c in candidates if wanted(c.origin, only) and not c.origin.names & without]
    return chosen, [c for c in candidates if c not in chosen]


def wanted(origin: Origin, only: frozenset[str] | None) -> bool:
    """Tell whether a plugin is among those that ``PAH_OPT_PLUGINS`` names, ``only``; None for all."""
    return only is None or origin.built_in or origin.distribution is None or bool(origin.names & only)


def _check_known(names: Iterable[str], candidates: list[Candidate], where: str) -> None:
    known = sorted({name for candidate in candidates for name in candidate.origin.names})
    for name in sorted(names):
        if name not in known:
            nearest = nearest_name(name, known)
            hint = f"did you mean {nearest!r}? " if nearest else ""
            raise PluginError(f"{where} names {name!r}, which is not installed; {hint}installed: {', '.join(known)}")
