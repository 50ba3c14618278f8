"""Judge the heads and hidden units of a model by the importance that was asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pah_opt.models.calibration import BlockRunner, evenly_spaced
from pah_opt.strategies.structured import scores
from pah_opt.strategies.structured.allocation import Ranking
from pah_opt.strategies.structured.compensation import complement, eliminate
from pah_opt.strategies.structured.config import FROM_DATA
from pah_opt.strategies.structured.gradients import gate_gradients, output_sensitivities
from pah_opt.strategies.structured.observation import Moments
from pah_opt.strategies.structured.weights import consumer, linear, unit_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from pah_opt.layout import Block, Layout
    from pah_opt.optimizer import Context
    from pah_opt.splits import Split
    from pah_opt.strategies.structured.allocation import Request
    from pah_opt.strategies.structured.config import StructuredConfig
    from pah_opt.strategies.structured.gradients import Sensitivity
    from pah_opt.strategies.structured.plan import Method
    from pah_opt.strategies.structured.sizes import Kind

SENSITIVITY_IMAGES = 64
"""Images on which sensitivities are estimated: they are means over images, and need a backward pass."""
EVEN = 0.1
"""Share of the weight of tokens that is the same for all of them."""
RANKED: tuple[Kind, ...] = ("heads", "mlp")
"""The kinds that compete across blocks."""


class Judge:
    """Says which units of a block stay, and how blocks compare.

    Gradients are those of the model as it is when they are first asked for.

    Args:
        model: the model.
        layout: of ``model``.
        method: how to judge.
        config: batch size.
        context: calibration images, adapter and seed.
    """

    def __init__(
        self, model: nn.Module, layout: Layout, method: Method, config: StructuredConfig, context: Context
    ) -> None:
        self.model = model
        self.layout = layout
        self.method = method
        self.config = config
        self.context = context
        self._generator = torch.Generator().manual_seed(context.seed)

    def keep(self, block: Block, kind: Kind, count: int, seen: Moments | None) -> Tensor:
        """Return the indices of the ``count`` units to keep, ascending.

        Args:
            block: from the layout.
            kind: ``heads`` or ``mlp``.
            count: how many.
            seen: of the inputs of the layer that reads them, where activations are observed.
        """
        present = _present(block, kind)
        if self.method.planning:
            return torch.arange(count, device="cpu")
        if self.method.importance == "surgeon" and seen is not None:
            path, unit = consumer(block, kind)
            weight = self._weighted(path)
            return complement(eliminate(weight, seen.covariance, present - count, unit=unit).order, present)
        return self._scores(block, kind, seen).topk(count).indices.sort().values

    def rankings(self, request: Request) -> list[Ranking]:
        """Rank the units of every block, so that blocks can be compared; nothing on a dry run."""
        kinds = [kind for kind in RANKED if kind in request.kinds]
        if self.method.planning or not kinds:
            return []
        return [
            Ranking.of(index, kind, self._falls(block, kind, seen))
            for index, block, kind, seen in self._observed(kinds)
        ]

    def _falls(self, block: Block, kind: Kind, seen: Moments | None) -> list[float]:
        """Return the importance of each further unit that goes; one more unit than is ever removed is left out."""
        if self.method.importance != "surgeon" or seen is None:
            falls: list[float] = self._scores(block, kind, seen).sort().values.tolist()
            return falls
        path, unit = consumer(block, kind)
        losses = eliminate(self._weighted(path), seen.covariance, _present(block, kind) - 1, unit=unit).losses
        steps: list[float] = torch.diff(losses, prepend=losses.new_zeros(1)).tolist()
        return steps

    def _observed(self, kinds: list[Kind]) -> Iterator[tuple[int, Block, Kind, Moments | None]]:
        runner = None
        if self.method.importance in FROM_DATA:
            runner = BlockRunner(self.model, self.layout, self.context.calibration, batch_size=self.config.batch_size)
        blocks = list(enumerate(self.layout.blocks))
        for index, block in self.context.progress.track(blocks, "comparing blocks", total=len(blocks)):
            paths = [consumer(block, kind)[0] for kind in kinds]
            seen = {} if runner is None else runner.covariances(index, paths, self.token_weights(paths))
            for kind, path in zip(kinds, paths, strict=True):
                yield index, block, kind, Moments.of(seen[path]) if path in seen else None
            if runner is not None:
                runner.advance(index)

    def token_weights(self, paths: Sequence[str]) -> dict[str, Tensor]:
        """Return how much each token of these layers' inputs counts, where tokens do not count alike."""
        if not self.method.focused:
            return {}
        # What goes into the query projection matters through what the attention gives out.
        outputs = {block.attention.query: block.attention.output for block in self.layout.blocks}
        found = {path: self._sensitivities[outputs.get(path, path)].tokens for path in paths}
        return {path: (1 - EVEN) * tokens + EVEN for path, tokens in found.items()}

    def _weighted(self, path: str) -> Tensor:
        """Return a layer's weights, with outputs scaled by how much the logits care about them."""
        weight = linear(self.model, path).weight.detach()
        return weight * self._sensitivities[path].outputs.sqrt()[:, None] if self.method.focused else weight

    def _scores(self, block: Block, kind: Kind, seen: Moments | None) -> Tensor:
        importance, (path, unit) = self.method.importance, consumer(block, kind)
        if importance in {"taylor", "hessian"}:
            return (scores.taylor if importance == "taylor" else scores.hessian)(self._gates[path])
        if importance == "activation" and seen is not None:
            return scores.activation(linear(self.model, path).weight.detach(), seen.second_moment, unit)
        if importance == "random":
            return scores.uniform_random(_present(block, kind), self._generator)
        weights = unit_weights(self.model, block, kind)
        return (
            scores.lamp(weights) if importance == "lamp" else scores.magnitude(weights, 1 if importance == "l1" else 2)
        )

    @cached_property
    def _gates(self) -> dict[str, Tensor]:
        units = dict(consumer(block, kind) for block in self.layout.blocks for kind in RANKED)
        return gate_gradients(
            self.model, self.context.adapter, self.layout, self.context.calibration, units,
            batch_size=self.config.batch_size,
        )  # fmt: skip

    @cached_property
    def _sensitivities(self) -> dict[str, Sensitivity]:
        paths = [consumer(block, kind)[0] for block in self.layout.blocks for kind in RANKED]
        return output_sensitivities(
            self.model, self.context.adapter, self.layout, _some(self.context.calibration), paths,
            batch_size=self.config.batch_size, seed=self.context.seed,
        )  # fmt: skip


def _some(split: Split | None) -> Split | None:
    return None if split is None else evenly_spaced(split, SENSITIVITY_IMAGES)


def _present(block: Block, kind: Kind) -> int:
    return block.attention.num_heads if kind == "heads" else block.mlp.width
