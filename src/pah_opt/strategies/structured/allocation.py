"""Decide how wide every block becomes, from a share of each kind or a target for the whole model: no tensors.

Shares are taken in every block alike (scope ``layer``), or from all blocks together by importance (``isomorphic``:
each kind by itself; ``global``: all kinds by importance per cost). A target is met by bisection over one number that
makes everything narrower, then by single steps in single blocks.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from pah_opt.errors import RecipeError
from pah_opt.strategies.structured.sizes import BlockShape, Figure, Kind, Shapes, Sizes, Widths, shapes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

KINDS: tuple[Kind, ...] = ("heads", "head_dims", "mlp")
TOLERANCE = 0.02
"""How far from a target, relative to it, the result may be."""
_BISECTIONS = 40
_STEPS = 200

Rung = tuple[float, float, int]
"""Importance per price; then how far up its own ranking a unit stands; then, the last first, its block."""


@dataclass(frozen=True)
class Ranking:
    """How much each further unit costs in accuracy, in the order in which units of one block are best removed.

    Args:
        block: index of the block.
        kind: heads or mlp.
        importances: of the first unit to go, the second, and so on; made non-decreasing.
    """

    block: int
    kind: Kind
    importances: tuple[float, ...]

    @classmethod
    def of(cls, block: int, kind: Kind, importances: Sequence[float]) -> Ranking:
        """Make a ranking; one that falls is raised to the most important unit before it."""
        return cls(block, kind, tuple(accumulate(importances, max)))


class _Contest:
    """Ranks the units of several rankings together, by importance per price; equals go evenly from all of them."""

    def __init__(self, rankings: Sequence[Ranking], prices: Sequence[int]) -> None:
        self._rungs: list[tuple[Ranking, list[Rung]]] = [
            (
                ranking,
                [(v / price, i / len(ranking.importances), -ranking.block) for i, v in enumerate(ranking.importances)],
            )
            for ranking, price in zip(rankings, prices, strict=True)
        ]
        self.ladder: list[Rung] = sorted(rung for _, rungs in self._rungs for rung in rungs)

    def removed(self, limit: Rung) -> Iterator[tuple[Ranking, int]]:
        """Yield for each ranking how many of its units stand at or below ``limit``."""
        for ranking, rungs in self._rungs:
            yield ranking, bisect.bisect_right(rungs, limit)


@dataclass(frozen=True)
class Request:
    """What to remove.

    Args:
        shares: share to remove of each kind; under a target, their proportion.
        figure: what a target is about; None without a target.
        keep: share of ``figure`` to keep.
        scope: ``layer``, ``isomorphic`` or ``global``.
        blocks: the shares of each block where they differ, first to last; without a target, in scope ``layer``.
    """

    shares: Mapping[Kind, float]
    figure: Figure | None = None
    keep: float = 1.0
    scope: str = "layer"
    blocks: Sequence[Mapping[Kind, float]] = ()

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that are cut."""
        given = (self.shares, *self.blocks)
        return tuple(kind for kind in KINDS if any(shares.get(kind, 0.0) > 0.0 for shares in given))

    def share(self, kind: Kind, block: int) -> float:
        """Return the share to remove of one kind in one block."""
        return (self.blocks[block] if self.blocks else self.shares).get(kind, 0.0)

    def of(self, kind: Kind) -> Request:
        """Return the part that is about one kind."""
        blocks = [{kind: shares.get(kind, 0.0)} for shares in self.blocks]
        return replace(self, shares={kind: self.shares.get(kind, 0.0)}, blocks=blocks)

    def scaled(self, strength: float) -> dict[Kind, float]:
        """Return the shares at a strength from 0 (nothing) to :attr:`strongest` (all that is allowed)."""
        largest = max(self.shares[kind] for kind in self.kinds)
        return {kind: min(1.0, strength * self.shares[kind] / largest) for kind in self.kinds}

    @property
    def strongest(self) -> float:
        """The strength at which the kind with the smallest share is cut as far as it goes."""
        shares = [self.shares[kind] for kind in self.kinds]
        return max(shares) / min(shares)


@dataclass(frozen=True)
class Allocator:
    """Allocates widths for one model.

    Args:
        sizes: what widths cost.
        widths: which widths are allowed.
        dense: the widths that shares and targets refer to.
        ceiling: the widths there are now: nothing grows again.
    """

    sizes: Sizes
    widths: Widths
    dense: Shapes
    ceiling: Shapes

    @classmethod
    def of(cls, sizes: Sizes, widths: Widths) -> Allocator:
        """Allocate for a model as it is."""
        shapes = shapes_of(sizes.layout)
        return cls(sizes, widths, shapes, shapes)

    def below(self, ceiling: Shapes) -> Allocator:
        """Allocate the next step for a model that was already cut to ``ceiling``."""
        return replace(self, ceiling=ceiling)

    def allocate(self, request: Request, rankings: Sequence[Ranking] = ()) -> Shapes:
        """Return the widths of every block.

        Args:
            request: what to remove.
            rankings: importance in every block, for the scopes that compare blocks; without them (on a dry run) blocks
                are cut alike.

        Raises:
            RecipeError: a target cannot be met within 2 %.
        """
        if request.blocks:
            return self._each(request.blocks)
        if request.figure is None:
            return self._by_shares(request.shares, rankings)
        goal = request.keep * self.sizes.totals(self.dense)[request.figure]
        found = self._towards(request, request.figure, goal, rankings)
        self._require_met(request, found, goal)
        return found

    def narrowest(self, kinds: Sequence[Kind]) -> Shapes:
        """Return the narrowest widths allowed when these kinds are cut."""
        return self._alike(dict.fromkeys(kinds, 1.0))

    # Shares.

    def _by_shares(self, shares: Mapping[Kind, float], rankings: Sequence[Ranking]) -> Shapes:
        shapes = self._alike(shares)
        for kind in ("heads", "mlp"):
            if shares.get(kind, 0.0) > 0.0 and (ranked := [r for r in rankings if r.kind == kind]):
                shapes = self._pooled(shapes, kind, shares[kind], ranked)
        return shapes

    def _alike(self, shares: Mapping[Kind, float]) -> Shapes:
        """Cut every block by the same shares."""
        return self._each([shares] * len(self.dense))

    def _each(self, blocks: Sequence[Mapping[Kind, float]]) -> Shapes:
        """Cut each block by its own shares."""
        return tuple(self._cut(*each) for each in zip(self.dense, self.ceiling, blocks, strict=True))

    def _cut(self, shape: BlockShape, ceiling: BlockShape, shares: Mapping[Kind, float]) -> BlockShape:
        # Heads first, since the width of a head is aligned with their number.
        for kind in KINDS:
            kept = self.widths.kept(kind, shape, shares.get(kind, 0.0))
            shape = shape.having(kind, min(kept, ceiling.count(kind)))
        return shape

    def _pooled(self, shapes: Shapes, kind: Kind, share: float, rankings: Sequence[Ranking]) -> Shapes:
        """Take a share of one kind from all blocks together, the least important first."""
        wanted = sum(shape.count(kind) for shape in self.dense) * (1.0 - share)

        def units(candidate: Shapes) -> float:
            return sum(shape.count(kind) for shape in candidate)

        contest = _Contest(rankings, [1] * len(rankings))
        found = _descend(contest.ladder, lambda limit: self._below(shapes, contest, limit), units, wanted)
        return self._refined(found, (kind,), units, wanted)

    def _below(self, shapes: Shapes, contest: _Contest, limit: Rung) -> Shapes:
        """Remove every unit that stands at or below ``limit``."""
        result = list(shapes)
        for ranking, gone in contest.removed(limit):
            there = self.ceiling[ranking.block].count(ranking.kind)
            kept = self.widths.nearest(ranking.kind, self.dense[ranking.block], there - gone)
            result[ranking.block] = result[ranking.block].having(ranking.kind, min(kept, there))
        return tuple(result)

    # Targets.

    def _towards(self, request: Request, figure: Figure, goal: float, rankings: Sequence[Ranking]) -> Shapes:
        def total(shapes: Shapes) -> float:
            return self.sizes.totals(shapes)[figure]

        ranked = [r for r in rankings if r.kind in request.kinds]
        if request.scope == "global" and ranked:
            found = self._priced(request, figure, goal, ranked)
        else:
            found = _bisected(lambda s: self._by_shares(request.scaled(s), rankings), request.strongest, total, goal)
        fine: tuple[Kind, ...] = ("mlp",) if "mlp" in request.kinds else request.kinds[:1]
        return self._refined(self._levelled(found, fine[0], total, goal), fine, total, goal)

    def _levelled(self, shapes: Shapes, kind: Kind, measure: Callable[[Shapes], float], goal: float) -> Shapes:
        """Widen or narrow one kind in all blocks by as much as comes closest to the goal.

        Blocks that are cut alike lose a head each at the same strength, which may be a sixth of all attention at once;
        what that is too much or too little, hidden units make good.
        """
        span = max(shape.count(kind) for shape in self.dense)

        def moved(strength: float) -> Shapes:
            counts = [
                min(self.widths.nearest(kind, dense, shape.count(kind) + span - strength), ceiling.count(kind))
                for dense, shape, ceiling in zip(self.dense, shapes, self.ceiling, strict=True)
            ]
            return tuple(shape.having(kind, count) for shape, count in zip(shapes, counts, strict=True))

        found = _bisected(moved, 2.0 * span, measure, goal)
        return min(shapes, found, key=lambda each: abs(measure(each) - goal))

    def _priced(self, request: Request, figure: Figure, goal: float, ranked: Sequence[Ranking]) -> Shapes:
        """Let heads and units of all blocks compete by importance per cost, once heads are as narrow as asked."""
        base = self._alike({"head_dims": request.shares.get("head_dims", 0.0)})
        contest = _Contest(ranked, [self.sizes.cost(figure, r.block, base[r.block], r.kind) for r in ranked])

        def total(shapes: Shapes) -> float:
            return self.sizes.totals(shapes)[figure]

        return _descend(contest.ladder, lambda limit: self._below(base, contest, limit), total, goal)

    def _refined(
        self, shapes: Shapes, kinds: Sequence[Kind], measure: Callable[[Shapes], float], goal: float
    ) -> Shapes:
        """Move single blocks by single steps while that comes closer to the goal."""
        for _ in range(_STEPS):
            options = self._neighbours(shapes, kinds, 1 if measure(shapes) < goal else -1)
            best = min(options, key=lambda option: abs(measure(option) - goal), default=shapes)
            if abs(measure(best) - goal) >= abs(measure(shapes) - goal):
                break
            shapes = best
        return shapes

    def _neighbours(self, shapes: Shapes, kinds: Sequence[Kind], direction: int) -> list[Shapes]:
        found = []
        # Where steps are equally good, the widest block gives and the narrowest gets.
        order = sorted(range(len(shapes)), key=lambda i: direction * shapes[i].count(kinds[0]))
        for index in order:
            for kind in kinds:
                count = self.widths.step(kind, shapes[index], direction)
                if count is not None and count <= self.ceiling[index].count(kind):
                    found.append((*shapes[:index], shapes[index].having(kind, count), *shapes[index + 1 :]))
        return found

    def _require_met(self, request: Request, found: Shapes, goal: float) -> None:
        figure = request.figure or "params"
        whole, got = self.sizes.totals(self.dense)[figure], self.sizes.totals(found)[figure]
        if abs(got - goal) <= TOLERANCE * goal:
            return
        least = self.sizes.totals(self.narrowest(request.kinds))[figure]
        reason = (
            f"the narrowest this step can make the model keeps {least / whole:.3f} (one head and {self.widths.min_mlp} "
            "units in every block; embeddings and classifier stay)"
            if goal < least
            else f"widths are multiples of {self.widths.align}, and the nearest they allow is {got / whole:.3f}"
        )
        raise RecipeError(
            f"target: {{{figure}: {request.keep}}} cannot be met within {TOLERANCE:.0%} by cutting "
            f"{', '.join(request.kinds)}: {reason}; choose another target, cut more kinds, or lower align"
        )


def _bisected(make: Callable[[float], Shapes], high: float, measure: Callable[[Shapes], float], goal: float) -> Shapes:
    """Return the result nearest to the goal over a strength from 0 to ``high`` that makes ``measure`` fall."""
    low, best = 0.0, make(high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        candidate = make(middle)
        low, high = (middle, high) if measure(candidate) > goal else (low, middle)
        best = min(best, candidate, key=lambda shapes: abs(measure(shapes) - goal))
    return best


def _descend(
    ladder: Sequence[Rung], make: Callable[[Rung], Shapes], measure: Callable[[Shapes], float], goal: float
) -> Shapes:
    """Return the result nearest to the goal over limits from a sorted ladder; higher limits make ``measure`` fall."""
    position = bisect.bisect_left(ladder, True, key=lambda limit: measure(make(limit)) <= goal)
    rungs = ladder[max(0, position - 1) : position + 1]
    return min((make(limit) for limit in rungs), key=lambda shapes: abs(measure(shapes) - goal))
