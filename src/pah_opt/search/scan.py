"""Per-layer choices: each one tried alone at each place, and a knapsack over what it damages and saves."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pah_opt.errors import PahOptError
from pah_opt.measure.trouble import forget_out_of_memory
from pah_opt.pipeline import apply
from pah_opt.progress import Progress
from pah_opt.search.bound import distinct
from pah_opt.search.forecast import learn
from pah_opt.search.knapsack import allocate
from pah_opt.search.proxy import output_errors
from pah_opt.splits import Data

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

    from pah_opt.search.bound import BoundSpace, Values
    from pah_opt.search.judge import Judge
    from pah_opt.search.parameters import Parameter, Value
    from pah_opt.splits import Split

SCAN_IMAGES = 64
SHARES = (0.0, 0.25, 0.5, 0.75)
"""Of the way from the cheapest to the dearest model; one allocation for each."""


@dataclass(frozen=True)
class Damage:
    """One choice at one place, everything else as little changed as the space allows.

    Args:
        predicted: figures of the model, named as in reports.
        harm: mean Kullback-Leibler divergence of the class probabilities from the dense model's, in nats; where it was
            estimated, the relative squared error of the layers' outputs.
    """

    predicted: Mapping[str, float]
    harm: float


Damages = dict[str, dict["Value", Damage]]
"""By name of the place and choice; a choice that cannot be made at a place is missing there."""


def knapsack_starts(bound: BoundSpace, judge: Judge, limit_s: float = float("inf")) -> list[Values]:
    """Return allocations of per-layer choices that damage least for what they cost.

    Every choice at every place is tried alone (on a few training images; any strategy's), and a knapsack adds up the
    damages. As soon as it is plain that this would take longer than ``limit_s``, damages are estimated instead, from
    one model for each choice (see :mod:`pah_opt.search.proxy`). When that takes too long too, there are no allocations.

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
    return distinct(starts)


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

    def run(self, until: float) -> Damages | None:
        """Return the damages, measured or at least estimated; None when not all can be had in time.

        A choice that is refused, crashes or runs out of memory at a place is left out there: it is no start either.

        Args:
            until: a time of :func:`time.perf_counter`.
        """
        images = self.judge.training.subset(range(min(SCAN_IMAGES, len(self.judge.training))))
        gentlest = self._gentlest()
        return self._measured(images, gentlest, until) or self._estimated(images, gentlest, until)

    def _measured(self, images: Split, gentlest: Value, until: float) -> Damages | None:
        dense = self._log_probabilities(self.judge.model, images)
        found: Damages = {place.name: {} for place in self.places}
        cells = [(place, choice) for place in self.places for choice in place.labels]
        began = time.perf_counter()
        for done, (place, choice) in enumerate(cells):
            now = time.perf_counter()
            expected = (now - began) / done * (len(cells) - done) if done else 0.0
            if now + expected > until:
                return None
            damage = self._try(self._alone(place, choice, gentlest), images, dense)
            if damage is not None:
                found[place.name][choice] = damage
        return found

    def _estimated(self, images: Split, gentlest: Value, until: float) -> Damages | None:
        """Estimate the damages from models that have the same choice at all places.

        None when not in time, or when a choice leaves layers that cannot be compared (of another width).
        """
        errors: dict[Value, Mapping[str, float]] = {}
        for choice in self.places[0].labels:
            if time.perf_counter() >= until:
                return None
            try:
                errors[choice] = self._errors(choice, images)
            except Exception as error:  # noqa: BLE001  # as in a trial: a strategy may raise anything
                forget_out_of_memory(error)
                return None
        found: Damages = {place.name: {} for place in self.places}
        for place in self.places:
            for tried, error_at in errors.items():
                if time.perf_counter() >= until:
                    return None
                predicted = self._predicted(self._alone(place, tried, gentlest))
                if predicted is not None:
                    found[place.name][tried] = Damage(predicted, error_at.get(str(place.path[-1]), 0.0))
        return found

    def _errors(self, choice: Value, images: Split) -> Mapping[str, float]:
        """Return the errors of one choice by place.

        One that is refused everywhere at once does nothing (every layer left as it is), or is refused alone too.
        """
        values = self._only({each.name: choice for each in self.places})
        if self._predicted(values) is None:
            return {}
        patterns = [str(each.path[-1]) for each in self.places]
        return output_errors(self.judge.model, self._made(values), self.judge.adapter, images, patterns)

    def _made(self, values: Values) -> nn.Module:
        """Make a model; its layers are learnt by the table, or else its latency could not be predicted."""
        recipe = self.bound.recipe(values, "scan")
        if recipe is None:
            return self.judge.model
        made = apply(
            self.judge.model, recipe, Data(test=self.judge.validation, train=self.judge.training), on_collapse="ignore",
            registry=self.judge.registry, calibration_images=self.judge.calibration_images, progress=Progress(),
        ).model  # fmt: skip
        if self.judge.table is not None:
            learn(self.judge.table, made, self.judge.adapter)
        return made

    def _alone(self, place: Parameter, choice: Value, gentlest: Value) -> Values:
        return self._only({each.name: gentlest for each in self.places} | {place.name: choice})

    def allocations(self, found: Damages) -> Iterator[Values]:
        """Yield the best choices for several sizes of each figure that the budget names; none where a place has none.

        Where no such figure could be predicted for every choice (energy, say), the size of the file stands for it.
        """
        cells = [damage for row in found.values() for damage in row.values()]
        if not all(found.values()):
            return
        named = dict.fromkeys((self.judge.budget.figure, *self.judge.budget.limits()))
        known = [figure for figure in named if all(figure in damage.predicted for damage in cells)]
        for figure in known or ["artifact_bytes"]:
            yield from self._allocations(found, figure)

    def _allocations(self, found: Damages, figure: str) -> Iterator[Values]:
        rows = [list(found[place.name].values()) for place in self.places]
        least = [min(damage.predicted[figure] for damage in row) for row in rows]
        costs = [[damage.predicted[figure] - low for damage in row] for row, low in zip(rows, least, strict=True)]
        most = sum(max(row) for row in costs)
        for share in SHARES:
            chosen = allocate(costs, [[damage.harm for damage in row] for row in rows], share * most)
            if chosen is not None:
                picks = zip(self.places, chosen, strict=True)
                yield self._only({place.name: list(found[place.name])[index] for place, index in picks})

    def _gentlest(self) -> Value:
        """Return the choice that leaves the largest model when all places take it: it changes least."""
        sizes: dict[Value, float] = {}
        for choice in self.places[0].labels:
            predicted = self._predicted(self._only({each.name: choice for each in self.places}))
            sizes[choice] = -1.0 if predicted is None else predicted["artifact_bytes"]
        return max(sizes, key=lambda choice: sizes[choice])

    def _only(self, chosen: Values) -> Values:
        """Choose this step alone where others can be left out, with these values and the middle of all others."""
        step = self.places[0].step

        def pick(each: Parameter) -> Value:
            if each.name in chosen:
                return chosen[each.name]
            return each.at(0.5 if each.path else float(each.step == step))

        return self.bound.choose(pick)

    def _predicted(self, values: Values) -> dict[str, float] | None:
        recipe = self.bound.recipe(values, "scan")
        try:
            return None if recipe is None else self.judge.predict(recipe)
        except PahOptError:
            return None  # refused, by its strategy or for what it would leave undone

    def _try(self, values: Values, images: Split, dense: Tensor) -> Damage | None:
        if self._predicted(values) is None:
            return None
        try:
            other = self._log_probabilities(self._made(values), images)
        except Exception as error:  # noqa: BLE001  # as in a trial: a strategy may raise anything, and the search goes on
            forget_out_of_memory(error)
            return None
        predicted = self._predicted(values)  # again: the table knows its layers now
        return (
            None if predicted is None else Damage(predicted, float((dense.exp() * (dense - other)).sum(dim=1).mean()))
        )

    @torch.inference_mode()
    def _log_probabilities(self, model: nn.Module, images: Split) -> Tensor:
        """Answer the images at the size that this model takes."""
        adapter, device = self.judge.adapter, next(model.parameters()).device
        batches = images.resized(*adapter.layout(model).image_size).batches(SCAN_IMAGES)
        logits = [adapter.logits(model(batch.pixel_values.to(device))) for batch in batches]
        return torch.cat(logits).double().log_softmax(dim=1).cpu()
