"""Where a search begins: single steps, weak and strong recipes, without a look at any figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.search.bound import distinct

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pah_opt.search.bound import BoundSpace, Values
    from pah_opt.search.parameters import Parameter, Value


def simple_starts(bound: BoundSpace) -> list[Values]:
    """Return each optional step alone, then all of them, each in the middle of its ranges: as a careful user would.

    Single steps come first: they lose least, so that there is a front within the limits after a few trials. One that
    has a choice for each place is tried with each choice everywhere, as one would by hand.
    """
    alone = [values for each in reversed(_alone(bound)) for values in _everywhere(bound, each)]
    return distinct([*alone, _all_at(bound, 0.5)])


def thorough_starts(bound: BoundSpace) -> list[Values]:
    """Return all steps near one end of their ranges, each optional step alone at both, and all near the other end."""
    alone = [_all_at(bound, share, only=each) for each in reversed(_alone(bound)) for share in (0.0, 1.0)]
    return distinct([_all_at(bound, 0.15), *alone, _all_at(bound, 0.85)])


def _alone(bound: BoundSpace) -> list[Parameter]:
    """Return the switches of steps that can be tried alone: with one optional step, that is every recipe."""
    return bound.switches if len(bound.switches) > 1 else []


def _everywhere(bound: BoundSpace, switch: Parameter) -> Iterator[Values]:
    """Yield a step alone in the middle of its ranges, then with each other choice for its places."""
    middle = _all_at(bound, 0.5, only=switch)
    yield middle
    for places in bound.groups().values():
        if places[0].step == switch.step and places[0].per is not None:
            yield from (middle | dict.fromkeys([each.name for each in places], value) for value in places[0].probes())


def _all_at(bound: BoundSpace, share: float, only: Parameter | None = None) -> Values:
    def pick(each: Parameter) -> Value:
        if each.path:
            return each.at(share)
        return each.at(1.0 if only is None or each.name == only.name else 0.0)

    return bound.choose(pick)
