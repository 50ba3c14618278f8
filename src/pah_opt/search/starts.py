"""Where a search begins: single steps, weak and strong recipes, and per-layer choices from a scan and a knapsack."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pah_opt.errors import PahOptError
from pah_opt.pipeline import apply
from pah_opt.progress import Progress
from pah_opt.search.knapsack import allocate
from pah_opt.splits import Data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from pah_opt.search.bound import BoundSpace, Values
    from pah_opt.search.judge import Judge
    from pah_opt.search.parameters import Parameter, Value

SCAN_IMAGES = 64
SHARES = (0.0, 0.25, 0.5, 0.75)
"""Of the way from the smallest to the largest file; one allocation for each."""


def simple_starts(bound: BoundSpace) -> list[Values]:
    """Return each optional step alone, then all of them, each in the middle, weak and strong: as a careful user would.

    Single steps come first: they lose least, so that there is a front within the limits after a few trials.
    """
    switches = [each for each in bound.parameters if not each.path]
    alone = switches if len(switches) > 1 else []
    starts = [_all_at(bound, 0.5, only=each) for each in reversed(alone)]
    starts += [_all_at(bound, share) for share in (0.5, 0.15)]
    starts += [_all_at(bound, share, only=each) for each in reversed(alone) for share in (0.0, 1.0)]
    return _distinct([*starts, _all_at(bound, 0.85)])


def _all_at(bound: BoundSpace, share: float, only: Parameter | None = None) -> Values:
    def pick(each: Parameter) -> Value:
        if each.path:
            return each.at(share)
        return each.at(1.0 if only is None or each.name == only.name else 0.0)

    return bound.choose(pick)


def _distinct(starts: list[Values]) -> list[Values]:
    return list({repr(sorted(values.items())): values for values in starts}.values())


@dataclass(frozen=True)
class Damage:
    """One choice at one place, everything else as little changed as the space allows.

    Args:
        place: name of the parameter.
        choice: its value as it is stored.
        bytes: planned bytes of the model.
        divergence: mean Kullback-Leibler divergence of the class probabilities from the dense model's, in nats.
    """

    place: str
    choice: Value
    bytes: float
    divergence: float


def knapsack_starts(bound: BoundSpace, judge: Judge, limit_s: float = float("inf")) -> list[Values]:
    """Return allocations of per-layer choices that damage least for the bytes they leave.

    Every choice at every place is tried alone (on a few training images; any strategy's), and a knapsack adds up the
    damages. The scan is given up as soon as it is plain that it would take longer than ``limit_s``.

    Args:
        bound: the space.
        judge: of the model.
        limit_s: seconds that the scan may take.
    """
    groups = [group for group in bound.groups().values() if group[0].per and len(group[0].choices) > 1]
    started = time.perf_counter()
    starts: list[Values] = []
    for places in groups:
        scan = Scan(bound, judge, tuple(places))
        found = scan.run(started + limit_s)
        starts += [] if found is None else list(scan.allocations(found))
    return _distinct(starts)


@dataclass
class Scan:
    """Tries every choice of a group of places alone.

    Args:
        bound: the space.
        judge: of the model.
        places: parameters of one step, one for each block or layer, with the same choices.
    """

    bound: BoundSpace
    judge: Judge
    places: tuple[Parameter, ...]

    def run(self, until: float) -> dict[tuple[str, Value], Damage] | None:
        """Return the damage of each choice at each place; None when one cannot be tried, or all not in time.

        Args:
            until: a time of :func:`time.perf_counter`.
        """
        images = self.judge.training.subset(range(min(SCAN_IMAGES, len(self.judge.training))))
        pixels = torch.cat([batch.pixel_values for batch in images.batches(SCAN_IMAGES)])
        dense = self._log_probabilities(self.judge.model, pixels)
        gentlest = self._gentlest()
        found: dict[tuple[str, Value], Damage] = {}
        cells = [(place, choice) for place in self.places for choice in place.labels]
        began = time.perf_counter()
        for done, (place, choice) in enumerate(cells):
            now = time.perf_counter()
            expected = (now - began) / done * (len(cells) - done) if done else 0.0
            if now + expected > until:
                return None
            values = self._only({each.name: gentlest for each in self.places} | {place.name: choice})
            damage = self._try(values, pixels, dense)
            if damage is None:
                return None
            found[place.name, choice] = Damage(place.name, choice, *damage)
        return found

    def allocations(self, found: dict[tuple[str, Value], Damage]) -> Iterator[Values]:
        """Yield the best choices for several sizes."""
        rows = [[found[place.name, choice] for choice in place.labels] for place in self.places]
        costs = [[damage.bytes - min(d.bytes for d in row) for damage in row] for row in rows]
        most = sum(max(row) for row in costs)
        for share in SHARES:
            chosen = allocate(costs, [[damage.divergence for damage in row] for row in rows], share * most)
            if chosen is not None:
                picks = zip(self.places, chosen, strict=True)
                yield self._only({place.name: place.labels[index] for place, index in picks})

    def _gentlest(self) -> Value:
        """Return the choice that leaves the largest model when all places take it: it changes least."""
        sizes: dict[Value, float] = {}
        for choice in self.places[0].labels:
            size = self._bytes(self._only({each.name: choice for each in self.places}))
            sizes[choice] = -1.0 if size is None else size
        return max(sizes, key=lambda choice: sizes[choice])

    def _only(self, chosen: Values) -> Values:
        """Choose this step alone where others can be left out, with these values and the middle of all others."""
        step = self.places[0].step

        def pick(each: Parameter) -> Value:
            if each.name in chosen:
                return chosen[each.name]
            return each.at(0.5 if each.path else float(each.step == step))

        return self.bound.choose(pick)

    def _bytes(self, values: Values) -> float | None:
        recipe = self.bound.recipe(values, "scan")
        try:
            return None if recipe is None else self.judge.predict(recipe)["artifact_bytes"]
        except PahOptError:
            return None  # every layer left as it is: no effect, so no recipe; it would be as large as the dense model

    def _try(self, values: Values, pixels: Tensor, dense: Tensor) -> tuple[float, float] | None:
        recipe = self.bound.recipe(values, "scan")
        size = self._bytes(values)
        if recipe is None or size is None:
            return float(self.judge.dense["artifact_bytes"] or 0.0), 0.0
        data = Data(test=self.judge.validation, train=self.judge.training)
        try:
            made = apply(
                self.judge.model, recipe, data, on_collapse="ignore", registry=self.judge.registry,
                calibration_images=self.judge.calibration_images, progress=Progress(),
            )  # fmt: skip
        except PahOptError:
            return None
        other = self._log_probabilities(made.model, pixels)
        return size, float((dense.exp() * (dense - other)).sum(dim=1).mean())

    @torch.inference_mode()
    def _log_probabilities(self, model: nn.Module, pixels: Tensor) -> Tensor:
        device = next(model.parameters()).device
        return self.judge.adapter.logits(model(pixels.to(device))).double().log_softmax(dim=1).cpu()
