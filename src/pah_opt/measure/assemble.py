"""From raw findings to a ModelReport; every figure that is missing gets its reason."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import torch

from pah_opt.measure.compiled import compile_mode, uses_cuda_graphs
from pah_opt.measure.latency import latency_figures
from pah_opt.measure.model_report import ModelReport, StepFigures
from pah_opt.measure.nvml import Reading
from pah_opt.measure.paired import compare_predictions
from pah_opt.measure.rounds import PairRatio, pair_ratio
from pah_opt.measure.schema import (
    Accuracy,
    Energy,
    Latency,
    Memory,
    ModelSize,
    Provenance,
    Ratio,
    Throughput,
    Timing,
    Utilization,
    VsBaseline,
    Workload,
)
from pah_opt.measure.session import INTERRUPTED, NOT_ASKED, Session
from pah_opt.measure.timer import timer_for
from pah_opt.measure.utilization import utilization

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.measure.collected import Collected
    from pah_opt.measure.timer import Block
    from pah_opt.measure.timing import Timed

IS_BASELINE = "this is the baseline"


def assemble(session: Session) -> list[ModelReport]:
    """Make the report of every model in a session, interrupted or not."""
    reports = {name: _Assembler(session, name).report() for name in session.collected}
    baseline = reports[session.baseline]
    return [_with_ratios(report, baseline) for report in reports.values()]


class _Assembler:
    """Makes the report of one model."""

    def __init__(self, session: Session, name: str) -> None:
        self.session = session
        self.name = name
        self.own: Collected = session.collected[name]
        self.base: Collected = session.collected[session.baseline]
        self.is_baseline = name == session.baseline

    def report(self) -> ModelReport:
        own = self.own
        return ModelReport(
            id=self.name, type=type(own.candidate.model).__name__,
            provenance=own.provenance or Provenance.having(INTERRUPTED), model=self._size(), accuracy=self._accuracy(),
            timings=tuple(self._timing(batch, timed) for batch, timed in own.timings.items()),
            memory=own.memory or Memory.having(self._why("memory")), vs_baseline=VsBaseline.having(IS_BASELINE),
            blocks=own.blocks, steps=_steps(own.candidate.artifact), extra=own.extra, notes=tuple(own.notes),
        )  # fmt: skip

    def _why(self, group: str) -> str:
        return INTERRUPTED if group in self.session.settings.groups else NOT_ASKED

    def _size(self) -> ModelSize:
        figures = self.own.figures
        if figures is None:
            return ModelSize.having(self.own.no_figures or INTERRUPTED)
        known = {name: getattr(figures, name) for name in ModelSize.figures()}
        return ModelSize.having(None, **known)

    def _accuracy(self) -> Accuracy:
        own, base = self.own.predictions, self.base.predictions
        if own is None:
            return Accuracy.having(self.own.no_accuracy or self._why("accuracy"))
        known: dict[str, Any] = {"top1": own.top1, "top5": own.top5, "nll": float(own.nll.mean()), "ece": own.ece}
        reasons = {"top5": f"five guesses among {own.num_classes} classes say nothing"}
        if self.is_baseline or base is None:
            return Accuracy.having(IS_BASELINE if self.is_baseline else "the baseline has none", reasons, **known)
        paired = compare_predictions(own, base)
        known |= {
            "top1_delta_pp": paired.top1_delta_pp, "top1_ci95_pp": paired.top1_ci95_pp,
            "flips_to_wrong": paired.flips_to_wrong, "flips_to_right": paired.flips_to_right,
            "mcnemar_p": paired.mcnemar_p, "agreement_with_baseline": paired.agreement,
        }  # fmt: skip
        return Accuracy.having(None, reasons, **known)

    def _timing(self, batch: Any, timed: Timed) -> Timing:
        throughput = _throughput(timed, self._why("throughput"))
        return Timing(
            workload=self._workload(timed), latency=self._latency(timed), throughput=throughput,
            energy=self._energy(timed), utilization=self._utilization(timed, throughput),
            ratio=self._ratio(batch, timed), notes=tuple(timed.notes),
        )  # fmt: skip

    def _workload(self, timed: Timed) -> Workload:
        candidate = self.own.candidate
        cuda = candidate.device.type == "cuda"
        return Workload.having(
            "the models are not on a CUDA device", {"rounds": NOT_ASKED}, batch_size=timed.batch_size,
            input_shape=(timed.batch_size, *candidate.input_shape), dtype=str(candidate.dtype).removeprefix("torch."),
            compile_mode=compile_mode(candidate.model), iters=timed.iters, warmup_iters=timed.warm.iterations,
            cuda_graphs=uses_cuda_graphs(candidate.model) if cuda else None, tf32=_tf32() if cuda else None,
            rounds=len(timed.blocks) or None,
        )  # fmt: skip

    def _latency(self, timed: Timed) -> Latency:
        if not timed.blocks:
            return Latency.having(self._why("latency"))
        return latency_figures(timed.blocks, timer_for(self.session.device).method, timed.warm)

    def _energy(self, timed: Timed) -> Energy:
        if timed.energy is not None and "energy" in self.session.settings.groups:
            return timed.energy
        return Energy.having(self.session.gpu.reason or self._why("energy"))

    def _utilization(self, timed: Timed, throughput: Throughput) -> Utilization:
        if "utilization" not in self.session.settings.groups:
            return Utilization.having(NOT_ASKED)
        samples = Reading(timed.samples, self.session.gpu.reason or INTERRUPTED)
        flops = None if self.own.figures is None else self.own.figures.flops
        dtype = self.own.candidate.dtype
        rate = self.session.rates.get(dtype)
        return utilization(flops, throughput.images_per_s, None if rate is None else (rate, dtype), samples)

    def _ratio(self, batch: Any, timed: Timed) -> Ratio:
        base = self.base.timings.get(batch)
        if self.is_baseline or base is None:
            return Ratio.having(IS_BASELINE if self.is_baseline else INTERRUPTED)
        return ratio_of(timed, base)


def ratio_of(own: Timed, base: Timed) -> Ratio:
    """Compare two models that took turns."""
    known: dict[str, Any] = {}
    reasons = dict.fromkeys(("speedup_ci95_x", "throughput_ci95_x"), "an interval needs 8 rounds")
    if own.blocks and own.batch_size == base.batch_size:
        speedup = _paired([_median(block) for block in base.blocks], [_median(block) for block in own.blocks])
        known |= {"speedup_p50_x": speedup.value, "speedup_ci95_x": speedup.interval}
    elif own.blocks:
        reasons |= dict.fromkeys(("speedup_p50_x", "speedup_ci95_x"), "the two were measured at different batch sizes")
    if own.slices and base.slices:
        gain = _paired([part.images_per_s for part in own.slices], [part.images_per_s for part in base.slices])
        known |= {"throughput_x": gain.value, "throughput_ci95_x": gain.interval}
    if own.energy is not None and base.energy is not None:
        known["energy_x"] = quotient(base.energy.j_per_image, own.energy.j_per_image)
    return Ratio.having("not measured for both", reasons, **known)


def _paired(numerators: Sequence[float], denominators: Sequence[float]) -> PairRatio:
    count = min(len(numerators), len(denominators))  # an interrupted round is complete for some models only
    return pair_ratio(numerators[:count], denominators[:count])


def _median(block: Block) -> float:
    return statistics.median(block.device_ms)


def _throughput(timed: Timed, why: str) -> Throughput:
    if not timed.slices:
        return Throughput.having(why)
    images, seconds = sum(part.images for part in timed.slices), sum(part.seconds for part in timed.slices)
    return Throughput.having(None, images_per_s=images / seconds, duration_s=seconds, images=images)


def quotient(above: float | None, below: float | None) -> float | None:
    """Divide, or return None where there is nothing to divide."""
    return above / below if above is not None and below else None


def _tf32() -> bool:
    # Reading torch.backends.cuda.matmul.allow_tf32 raises once the newer setting was used.
    return torch.get_float32_matmul_precision() != "highest"


def _steps(artifact: Any) -> tuple[StepFigures, ...]:
    """Copy the record of the recipe that made a model."""
    steps = getattr(artifact, "steps", ())
    names = ("config", "achieved", "before", "after")
    return tuple(
        StepFigures(use=step.use, seconds=step.seconds, **{name: dict(getattr(step, name)) for name in names})
        for step in steps
    )


def _with_ratios(report: ModelReport, baseline: ModelReport) -> ModelReport:
    if report.id == baseline.id:
        known: dict[str, Any] = {"baseline_id": baseline.id}
        return report.model_copy(update={"vs_baseline": VsBaseline.having(IS_BASELINE, **known)})
    return report.model_copy(update={"vs_baseline": versus(report, baseline)})


def versus(report: ModelReport, baseline: ModelReport) -> VsBaseline:
    """Put a model against its baseline in one line."""
    latency = report.latency_timing.ratio if report.latency_timing else None
    throughput = report.throughput_timing.ratio if report.throughput_timing else None
    return VsBaseline.having(
        "not measured for both", baseline_id=baseline.id,
        speedup_p50_x=latency and latency.speedup_p50_x, speedup_ci95_x=latency and latency.speedup_ci95_x,
        throughput_x=throughput and throughput.throughput_x, energy_x=throughput and throughput.energy_x,
        size_x=quotient(_bytes(baseline), _bytes(report)),
        params_x=quotient(baseline.model.params, report.model.params),
        macs_x=quotient(baseline.model.macs, report.model.macs),
    )  # fmt: skip


def _bytes(report: ModelReport) -> int | None:
    """Return what the model takes: as a file where that is known, else in memory."""
    return report.memory.artifact_bytes or report.memory.weights_bytes
