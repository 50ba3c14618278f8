"""How much faster a model is than the dense one, found quickly: both take turns on the one timer."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pah_opt.measure.candidate import Candidate
from pah_opt.measure.modes import evaluating
from pah_opt.measure.rounds import take_turns
from pah_opt.measure.settings import MeasureSettings
from pah_opt.measure.timer import timer_for
from pah_opt.measure.warmup import warm_up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from pah_opt.layout import ModelAdapter

SETTINGS = MeasureSettings.quick(warmup_iters=2, warmup_s=0.02, warmup_limit_s=2.0)
ROUNDS = 8
ROUND_MS = 12.0
"""Timed passes of one model in a round last about this long."""
LIMIT_S = 6.0


@dataclass(frozen=True)
class Paired:
    """Two models that took turns.

    Args:
        dense_ms: median pass of the dense model.
        ratio: median over rounds of the dense model's time over the other's.
    """

    dense_ms: float
    ratio: float


def paired_speed(
    dense: nn.Module, model: Any, adapters: Sequence[ModelAdapter], batch_size: int, seed: int = 0
) -> Paired:
    """Time a model against the dense one.

    Args:
        dense: the dense model.
        model: another model, or an Artifact.
        adapters: of the registry.
        batch_size: images in a pass.
        seed: of the images and the order of turns.
    """
    found = {name: Candidate.of(name, each, adapters) for name, each in (("dense", dense), ("model", model))}
    timer = timer_for(found["dense"].device)
    with evaluating(*(each.model for each in found.values())):
        calls = {name: each.call(batch_size, seed) for name, each in found.items()}
        passes = {name: max(1, round(ROUND_MS / warm_up(call, timer, SETTINGS).typical_ms))
                  for name, call in calls.items()}  # fmt: skip

        def turn(name: str) -> Callable[[], float]:
            return lambda: statistics.median(timer.time(calls[name], min(passes[name], 100)).device_ms)

        done = take_turns(
            {name: turn(name) for name in calls}, lambda _: False, at_least=3, at_most=ROUNDS, limit_s=LIMIT_S,
            seed=seed,
        )  # fmt: skip
    ratio = statistics.median(each["dense"] / each["model"] for each in done)
    return Paired(statistics.median(each["dense"] for each in done), ratio)
