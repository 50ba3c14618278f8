"""The state-tag walk: can each step start from what the steps before it leave?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.optimizer import Tags
    from pah_opt.recipe import Recipe

MOST_ATTEMPTS = 20_000
"""Partial orders that are tried before giving up the search for one that works."""


def order_problems(recipe: Recipe, steps: Sequence[Tags | None], initial: frozenset[str]) -> list[Problem]:
    """Walk the state tags over the whole recipe and return a Problem for each step that cannot start.

    Args:
        recipe: the recipe.
        steps: how each step changes tags; None where that is not known because the step is wrong otherwise.
        initial: tags of the model before the first step.
    """
    walk = _Walk(recipe, initial)
    for index, tags in enumerate(steps):
        walk.take(index, tags)
    known = [tags for tags in steps if tags is not None]
    remedy = _remedy(recipe, known, initial) if walk.obstacles and len(known) == len(steps) else None
    return [Problem(message, recipe.place("steps", index), remedy=remedy) for index, message in walk.obstacles.items()]


class _Walk:
    """Follows each tag through the steps: what is there now, who provided or removed it, which step cannot start."""

    def __init__(self, recipe: Recipe, initial: frozenset[str]) -> None:
        self.recipe = recipe
        self.now = initial
        self.removed_by: dict[str, int] = {}
        self.provided_by: dict[str, int] = {}
        self.obstacles: dict[int, str] = {}
        self.certain = True

    def take(self, index: int, tags: Tags | None) -> None:
        """Take one step. After one of unknown effect, only what later steps do is certain."""
        if tags is None:
            self.certain = False
            self.removed_by.clear()
            self.provided_by.clear()
            return
        missing = self._traced(tags.requires - self.now, self.removed_by)
        undone = self._traced(tags.excludes & self.now, self.provided_by)
        parts = [
            *(f"needs {names}, which {self._where_it_went(step)}" for step, names in missing.items()),
            *(f"would undo {names}, which {self._where_from(step)}" for step, names in undone.items()),
        ]
        if parts:
            self.obstacles[index] = "; ".join(parts)
        self.now = tags.after(self.now)
        self.removed_by |= dict.fromkeys(tags.removes, index)
        self.provided_by |= dict.fromkeys(tags.provides, index)
        for tag in tags.provides:
            self.removed_by.pop(tag, None)

    def _traced(self, tags: frozenset[str], steps: dict[str, int]) -> dict[int | None, str]:
        """Group tags, spelled out, by the step that is answerable for them; None stands for the model itself."""
        found: dict[int | None, list[str]] = {}
        for tag in sorted(tags):
            if self.certain or tag in steps:
                found.setdefault(steps.get(tag), []).append(repr(tag))
        return {step: " and ".join(names) for step, names in found.items()}

    def _where_it_went(self, remover: int | None) -> str:
        return (
            "neither the model nor an earlier step provides" if remover is None else f"{self._named(remover)} removed"
        )

    def _where_from(self, provider: int | None) -> str:
        return "the model has from the start" if provider is None else f"{self._named(provider)} provides"

    def _named(self, step: int) -> str:
        return f"step {step + 1} ({self.recipe.steps[step].use})"


def _remedy(recipe: Recipe, steps: Sequence[Tags], initial: frozenset[str]) -> str:
    order = working_order(steps, initial)
    if order is None:
        return "no order of these steps works: leave one of them out"
    return "this order works: " + ", ".join(recipe.steps[index].use for index in order)


def working_order(steps: Sequence[Tags], initial: frozenset[str]) -> tuple[int, ...] | None:
    """Return the first order, by the steps' own order, in which every step can start.

    Returns:
        Indices into ``steps``; None when there is no such order (or none was found in ``MOST_ATTEMPTS``).
    """
    dead_ends: set[tuple[frozenset[int], frozenset[str]]] = set()

    def continue_from(done: tuple[int, ...], now: frozenset[str]) -> tuple[int, ...] | None:
        state = (frozenset(done), now)
        if len(done) == len(steps):
            return done
        if state in dead_ends or len(dead_ends) > MOST_ATTEMPTS:
            return None
        for index, tags in enumerate(steps):
            if index not in state[0] and tags.admits(now):
                found = continue_from((*done, index), tags.after(now))
                if found is not None:
                    return found
        dead_ends.add(state)
        return None

    return continue_from((), initial)
