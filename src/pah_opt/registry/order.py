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
    remedy = _remedy(recipe, known, initial) if walk.lacking and len(known) == len(steps) else None
    return [
        Problem(walk.message(tags), recipe.place("steps", index), remedy=remedy) for index, tags in walk.lacking.items()
    ]


class _Walk:
    """Follows each tag through the steps: what is there now, which step removed what, which step lacks what."""

    def __init__(self, recipe: Recipe, initial: frozenset[str]) -> None:
        self.recipe = recipe
        self.now = initial
        self.removed_by: dict[str, int] = {}
        self.lacking: dict[int, dict[str, int | None]] = {}
        self.certain = True

    def take(self, index: int, tags: Tags | None) -> None:
        """Take one step. After one of unknown effect, only what a later step removes is certain."""
        if tags is None:
            self.certain = False
            self.removed_by.clear()
            return
        missing = [tag for tag in sorted(tags.requires - self.now) if self.certain or tag in self.removed_by]
        if missing:
            self.lacking[index] = {tag: self.removed_by.get(tag) for tag in missing}
        self.now = (self.now - tags.removes) | tags.provides
        self.removed_by.update(dict.fromkeys(tags.removes, index))
        for tag in tags.provides:
            self.removed_by.pop(tag, None)

    def message(self, missing: dict[str, int | None]) -> str:
        """Say which tags a step needs, and where they went."""
        parts = []
        for remover in dict.fromkeys(missing.values()):
            tags = " and ".join(repr(tag) for tag, by in missing.items() if by == remover)
            parts.append(f"needs {tags}, which {self._where_it_went(remover)}")
        return "; ".join(parts)

    def _where_it_went(self, remover: int | None) -> str:
        if remover is None:
            return "neither the model nor an earlier step provides"
        return f"step {remover + 1} ({self.recipe.steps[remover].use}) removed"


def _remedy(recipe: Recipe, steps: Sequence[Tags], initial: frozenset[str]) -> str:
    order = working_order(steps, initial)
    if order is None:
        return "no order of these steps works: leave one of them out"
    return "this order works: " + ", ".join(recipe.steps[index].use for index in order)


def working_order(steps: Sequence[Tags], initial: frozenset[str]) -> tuple[int, ...] | None:
    """Return the first order, by the steps' own order, in which every step finds the tags it requires.

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
            if index not in state[0] and tags.requires <= now:
                found = continue_from((*done, index), (now - tags.removes) | tags.provides)
                if found is not None:
                    return found
        dead_ends.add(state)
        return None

    return continue_from((), initial)
