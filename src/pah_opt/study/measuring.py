"""Measure one row beside the dense model: in turns for speed, image by image for accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pah_opt.measure.accuracy import Predictions, at_chance, predict
from pah_opt.measure.candidate import Candidate
from pah_opt.measure.paired import compare_predictions
from pah_opt.measure.settings import MeasureSettings
from pah_opt.registry import default_registry
from pah_opt.report import compare
from pah_opt.report.figures import figure
from pah_opt.study.results import Figures
from pah_opt.study.schema import DENSE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from pah_opt.measure.model_report import ModelReport
    from pah_opt.progress import Progress
    from pah_opt.report import Report
    from pah_opt.splits import Split

ROW = "row"
TIMED = ("latency", "throughput", "memory", "energy")
"""Groups that a study measures besides accuracy."""
NAMES = {
    "params": "params", "sparsity_pct": "sparsity_pct", "macs": "macs", "latency_ms": "latency_p50_ms",
    "speedup_x": "speedup_p50_x", "images_per_s": "images_per_s", "throughput_x": "throughput_x",
    "j_per_image": "j_per_image", "energy_x": "energy_x", "file_bytes": "artifact_bytes", "size_x": "size_x",
}  # fmt: skip
"""Figures of a study by their names in reports."""


def settings_of(changes: Mapping[str, Any]) -> MeasureSettings:
    """Return the quick settings with a study's changes."""
    return MeasureSettings.quick(**{"groups": TIMED, **changes})


@dataclass(frozen=True)
class Judged:
    """The dense model's answers, kept so that later rows are compared with it image by image.

    Args:
        labels: of the test images.
        predicted: the dense model's classes.
        fingerprint: of the images.
    """

    labels: tuple[int, ...]
    predicted: tuple[int, ...]
    fingerprint: str

    @classmethod
    def of(cls, predictions: Predictions) -> Judged:
        """Keep what a paired comparison needs."""
        return cls(
            tuple(predictions.labels.tolist()), tuple(predictions.predicted.tolist()), predictions.fingerprint
        )  # fmt: skip

    def predictions(self) -> Predictions:
        """Return them as predictions without confidences."""
        nothing = np.zeros(len(self.labels))
        labels, predicted = np.asarray(self.labels, np.int64), np.asarray(self.predicted, np.int64)
        return Predictions(labels, predicted, None, nothing, nothing, 0, self.fingerprint)


@dataclass(frozen=True)
class Measurement:
    """What was measured of one row."""

    figures: Figures
    judged: Judged
    collapsed: bool
    linear_dtypes: dict[str, int]
    contended: bool


def measure_row(
    candidate: Any,
    dense: nn.Module,
    split: Split,
    settings: MeasureSettings,
    *,
    baseline: Judged | None = None,
    timed: bool = True,
    known: Mapping[str, float] | None = None,
    unknown: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> Measurement:
    """Measure a model beside the dense one.

    Args:
        candidate: a module or an Artifact; ``dense`` itself for the first row.
        dense: what rows are compared with.
        split: the images to judge ``candidate`` on.
        settings: how thoroughly.
        baseline: the dense model's answers; None for the dense model itself.
        timed: whether to measure speed and size.
        known: figures that replace counted ones.
        unknown: figures that are left out.
        progress: shows progress.
    """
    adapters = default_registry().adapters
    own = Candidate.of(ROW, candidate, adapters, split)
    sized = split.resized(*own.input_shape[1:])
    batch = settings.accuracy_batch
    predictions = predict(own.model, own.adapter, sized, batch_size=batch, fingerprint=split.fingerprint)
    figures: dict[str, Any] = {"top1": predictions.top1}
    if baseline is not None:
        figures |= _against(predictions, baseline)
    types: dict[str, int] = {}
    contended = False
    if timed:
        models = {DENSE: dense} if candidate is dense else {DENSE: dense, ROW: candidate}
        report = compare(models, None, settings=settings, progress=progress)
        if not report.complete:
            raise KeyboardInterrupt
        measured, contended = report.models[-1], bool(report.env.contended)
        figures |= _measured(measured)
        if candidate is not dense:
            base = _measured(report.baseline)
            figures |= {"dense_latency_ms": base["latency_ms"], "dense_images_per_s": base["images_per_s"]}
        types = dict(measured.model.linear_dtypes or {})
        figures |= _replaced(figures, report, known or {}, unknown)
    collapsed = at_chance(predictions, len(split.class_names))
    return Measurement(Figures(**figures), Judged.of(predictions), collapsed, types, contended)


def _against(predictions: Predictions, baseline: Judged) -> dict[str, float]:
    before = baseline.predictions()
    drop = 100.0 * (before.top1 - predictions.top1)
    if predictions.fingerprint != before.fingerprint:
        return {"top1_drop_pp": drop}  # prepared another way on purpose: no pairs of the same image and label
    return {"top1_drop_pp": drop, "mcnemar_p": compare_predictions(predictions, before).mcnemar_p}


def _measured(model: ModelReport) -> dict[str, Any]:
    found: dict[str, Any] = {ours: figure(theirs).find(model).value for ours, theirs in NAMES.items()}
    interval = model.vs_baseline.speedup_ci95_x
    found["speedup_low_x"], found["speedup_high_x"] = interval or (None, None)
    for name, timing in (("latency_batch", model.latency_timing), ("throughput_batch", model.throughput_timing)):
        found[name] = None if timing is None else timing.workload.batch_size
    return found


def _replaced(
    figures: Mapping[str, Any], report: Report, known: Mapping[str, float], unknown: tuple[str, ...]
) -> dict[str, Any]:
    changed: dict[str, Any] = {**dict.fromkeys(unknown), **known}
    before = report.baseline.memory.artifact_bytes
    size = changed.get("file_bytes", figures["file_bytes"])
    return {**changed, "size_x": before / size if before and size else None}
