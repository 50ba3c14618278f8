"""Time models against one another at one batch size: warm up, take turns, run back to back, read the energy."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pah_opt.errors import MeasurementError
from pah_opt.measure.energy import measure_energy
from pah_opt.measure.latency import passes_in_a_block
from pah_opt.measure.rounds import pair_ratio, take_turns
from pah_opt.measure.statistics import median_interval
from pah_opt.measure.throughput import Slice, best_batch, throughput_slice
from pah_opt.measure.timer import timer_for
from pah_opt.measure.trouble import is_out_of_memory, release_memory
from pah_opt.measure.warmup import WarmUp, warm_up

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pah_opt.measure.candidate import Candidate
    from pah_opt.measure.nvml import Gpu
    from pah_opt.measure.sampling import Samples
    from pah_opt.measure.schema import Energy
    from pah_opt.measure.settings import Batch, MeasureSettings
    from pah_opt.measure.timer import Block, Call, Timer


@dataclass
class Timed:
    """Raw timings of one model at one batch size; a list is empty, or a field None, when it was not measured."""

    batch_size: int
    warm: WarmUp
    call: Call
    iters: int = 0
    blocks: list[Block] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    energy: Energy | None = None
    samples: Samples | None = None
    notes: list[str] = field(default_factory=list)


def time_models(
    candidates: Mapping[str, Candidate],
    batch: Batch,
    settings: MeasureSettings,
    *,
    baseline: str,
    gpu: Gpu | None,
    into: dict[str, Timed],
) -> None:
    """Measure all models at one batch size, filling ``into`` as it goes, so that an interruption keeps what is done.

    Args:
        candidates: the models, checked, in ``eval`` mode.
        batch: images in a pass, or ``best`` for each model's own best.
        settings: what and how long.
        baseline: name of the model that the others are compared with.
        gpu: the device's counters.
        into: what was measured, by name.

    Raises:
        MeasurementError: not even a batch of one fits into memory.
    """
    timer = timer_for(next(iter(candidates.values())).device)
    into |= _warmed_up(candidates, batch, timer, settings)
    if "latency" in settings.groups:
        _latency(into, timer, settings, baseline)
    if "throughput" in settings.groups:
        _throughput(into, timer, settings)
    if gpu is not None and settings.groups & {"energy", "utilization"}:
        for timed in into.values():
            timed.energy, timed.samples = measure_energy(timed.call, timed.batch_size, timer, gpu, settings)


def _warmed_up(
    candidates: Mapping[str, Candidate], batch: Batch, timer: Timer, settings: MeasureSettings
) -> dict[str, Timed]:
    if batch == "best":
        return {name: _at_best_batch(candidate, timer, settings) for name, candidate in candidates.items()}
    notes: list[str] = []
    while True:
        timed: dict[str, Timed] = {}
        try:
            timed.update((name, _warm(candidate, batch, timer, settings)) for name, candidate in candidates.items())
        except Exception as error:  # each backend has an error of its own for running out of memory
            if not is_out_of_memory(error):
                raise
            failed = list(candidates)[len(timed)]
            batch = _smaller(batch, failed, notes)
            continue
        for each in timed.values():
            each.notes += notes
        return timed


def _smaller(batch: int, name: str, notes: list[str]) -> int:
    """Halve the batch for every model, so that figures stay comparable, and say so."""
    release_memory()
    if batch == 1:
        raise MeasurementError(
            f"{name} runs out of memory with one image; free memory, or measure fewer models at once"
        )
    notes.append(f"{name} runs out of memory at batch {batch}; every model was measured at batch {batch // 2} instead")
    return batch // 2


def _warm(candidate: Candidate, batch: int, timer: Timer, settings: MeasureSettings) -> Timed:
    call = candidate.call(batch, settings.seed)
    warm = warm_up(call, timer, settings)
    timed = Timed(batch, warm, call, passes_in_a_block(warm.typical_ms, settings))
    if not warm.settled:
        timed.notes.append(f"times had not settled after {settings.warmup_limit_s:g} s of warm-up")
    return timed


def _at_best_batch(candidate: Candidate, timer: Timer, settings: MeasureSettings) -> Timed:
    seconds = min(0.5, settings.throughput_s)
    found = best_batch(
        lambda size: candidate.call(size, settings.seed), timer, largest=settings.largest_batch, seconds=seconds
    )
    timed = _warm(candidate, found.batch_size, timer, settings)
    seen = ", ".join(f"{size}: {rate:,.1f}" for size, rate in found.images_per_s.items())
    timed.notes.append(f"batch {found.batch_size} has the best throughput of those tried (images/s at {seen})")
    if found.note:
        timed.notes.append(found.note)
    return timed


def _latency(timed: dict[str, Timed], timer: Timer, settings: MeasureSettings, baseline: str) -> None:
    def turn(each: Timed) -> Callable[[], Block]:
        def run() -> Block:
            each.blocks.append(timer.time(each.call, each.iters))
            return each.blocks[-1]

        return run

    def narrow(rounds: Sequence[Mapping[str, Block]]) -> bool:
        return all(_width(rounds, name, baseline) <= settings.interval_width for name in timed)

    for each in timed.values():
        each.call()  # what another model's warm-up has pushed out of caches comes back untimed
    take_turns(
        {name: turn(each) for name, each in timed.items()}, narrow, at_least=3, at_most=settings.max_rounds,
        limit_s=settings.latency_limit_s * len(timed), seed=settings.seed, wanted=settings.min_rounds,
    )  # fmt: skip


def _width(rounds: Sequence[Mapping[str, Block]], name: str, baseline: str) -> float:
    """Return the relative width of the interval of a model's speed-up (of the baseline's own median)."""
    own = [statistics.median(each[name].device_ms) for each in rounds]
    if name == baseline:
        interval = median_interval(own)
        return float("inf") if interval is None else interval.width / statistics.median(own)
    return pair_ratio([statistics.median(each[baseline].device_ms) for each in rounds], own).relative_width


def _throughput(timed: dict[str, Timed], timer: Timer, settings: MeasureSettings) -> None:
    seconds = settings.throughput_s / settings.throughput_slices

    def turn(each: Timed) -> Callable[[], None]:
        return lambda: each.slices.append(throughput_slice(each.call, each.batch_size, timer, seconds))

    count = settings.throughput_slices
    take_turns(
        {name: turn(each) for name, each in timed.items()}, lambda _: False, at_least=count, at_most=count,
        seed=settings.seed,
    )  # fmt: skip
