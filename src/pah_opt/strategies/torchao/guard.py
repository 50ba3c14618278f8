"""Keep a model within a limit: the layers that quantization hurts most go back to float, as few as that takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pah_opt.errors import UnsupportedModelError
from pah_opt.strategies.torchao.divergence import Divergence, divergence
from pah_opt.strategies.torchao.scan import (
    LayerSensitivity,
    LinearTensors,
    Scan,
    finite,
    put_tensors,
    swapped,
    tensors_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from pah_opt.progress import Progress
    from pah_opt.strategies.torchao.config import Guard
    from pah_opt.strategies.torchao.scan import Ranking


def within(found: Divergence, limit: Guard) -> bool:
    """Tell whether a divergence keeps every limit given."""
    kl_holds = limit.max_kl is None or found.kl <= limit.max_kl
    return kl_holds and (limit.max_drop_pp is None or found.top1_drop_pp <= limit.max_drop_pp)


@dataclass(frozen=True)
class Guarded:
    """What guarding did.

    Args:
        restored: layers that went back to float, most damaging first.
        before: divergence with every layer quantized.
        after: divergence of the model as it is left.
        order: what each layer does by itself, most damaging first; empty when nothing had to be restored.
    """

    restored: tuple[str, ...]
    before: Divergence
    after: Divergence
    order: tuple[LayerSensitivity, ...]

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "left_in_float": list(self.restored),
            "all_quantized": finite(self.before._asdict()),
            "reached": finite(self.after._asdict()),
            "sensitivity": [layer.to_data() for layer in self.order],
        }


class Guardian:
    """Measures a quantized model against the float one, and gives layers back their float tensors.

    Args:
        scan: of the model; quantized by now.
        reference: logits of the float model, batch by batch.
        labels: of the same images.
        floats: the float tensors of its layers, by path.
        limit: what must hold.
    """

    def __init__(
        self,
        scan: Scan,
        reference: Sequence[Tensor],
        labels: Sequence[Tensor],
        floats: Mapping[str, LinearTensors],
        limit: Guard,
    ) -> None:
        self._scan = scan
        self._reference = reference
        self._labels = labels
        self._floats = floats
        self._limit = limit

    def guard(self, schemes: Mapping[str, str], progress: Progress) -> Guarded:
        """Restore as few layers as it takes, most damaging first.

        Raises:
            UnsupportedModelError: not even one quantized layer keeps the limit.
        """
        before = self._measured(())
        if within(before, self._limit):
            return Guarded((), before, before, ())
        order = self._order(schemes, progress)
        paths = tuple(layer.path for layer in order)
        count, after = self._fewest(paths)
        if count == len(paths):
            raise UnsupportedModelError(
                f"guarded: quantizing {paths[-1]} alone, the least damaging layer, already passes the limit "
                f"({_said(self._limit)}); allow more, or choose a milder scheme"
            )
        put_tensors(self._scan.model, {path: self._floats[path] for path in paths[:count]})
        return Guarded(paths[:count], before, after, order)

    def _order(self, schemes: Mapping[str, str], progress: Progress) -> tuple[LayerSensitivity, ...]:
        quantized = {path: tensors_of(self._scan.model, path) for path in self._floats}
        with swapped(self._scan.model, self._floats):
            by: Ranking = "top1_drop_pp" if self._limit.max_kl is None else "kl"
            return self._scan.run(quantized, schemes, progress, by=by)

    def _fewest(self, paths: tuple[str, ...]) -> tuple[int, Divergence]:
        """Return the smallest number of first ``paths`` in float that keeps the limit, by bisection."""
        low, high = 1, len(paths)
        held: dict[int, Divergence] = {}
        while low < high:
            middle = (low + high) // 2
            found = self._measured(paths[:middle])
            if within(found, self._limit):
                high, held[middle] = middle, found
            else:
                low = middle + 1
        return high, held.get(high, Divergence(0.0, 0.0, 0.0))

    def _measured(self, in_float: Sequence[str]) -> Divergence:
        with swapped(self._scan.model, {path: self._floats[path] for path in in_float}):
            logits, _ = self._scan.all_logits()
        return divergence(self._reference, logits, self._labels)


def _said(limit: Guard) -> str:
    given = limit.model_dump(exclude_none=True, exclude={"images"})
    return ", ".join(f"{name} {value}" for name, value in given.items())
