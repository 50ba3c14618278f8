"""Two reports made at different times: what can be compared between them, what cannot, and why."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from pah_opt.report.figures import FIGURES, figure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.measure.model_report import ModelReport
    from pah_opt.measure.schema import Timing
    from pah_opt.report.schema import Report

COUNTED = ("params", "params_nonzero", "sparsity_pct", "macs", "flops", "artifact_bytes", "weights_bytes")
"""Figures that do not depend on the machine."""
JUDGED = ("top1", "top5", "nll", "ece", "top1_delta_pp", "agreement_with_baseline")
"""Figures that depend on the images."""
RELATIVE = ("params_x", "macs_x", "size_x", "top1_delta_pp", "agreement_with_baseline")
"""Figures that mean nothing without the baseline they were taken against; two of them depend on the images too."""
TIMED = (
    "latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "latency_mean_ms", "images_per_s", "j_per_image",
    "images_per_j", "mean_power_w", "peak_allocated_bytes", "peak_reserved_bytes", "mfu_pct",
)  # fmt: skip
"""Figures that depend on the machine, its software, and how busy it was."""
RATIOS = ("speedup_p50_x", "throughput_x", "energy_x")
"""Figures from models that took turns: a machine that is faster or slower on the whole leaves them alone."""


@dataclass(frozen=True)
class Change:
    """One figure of one model in both reports."""

    model: str
    figure: str
    before: float
    after: float
    better: str

    @property
    def factor(self) -> float | None:
        """After over before; None unless both are above zero: a share of a loss or of nothing says nothing."""
        return self.after / self.before if self.before > 0 and self.after > 0 else None


@dataclass(frozen=True)
class Difference:
    """What two reports say of the models that are in both.

    Args:
        same: models in both.
        only_before: models that are gone.
        only_after: models that are new.
        conditions: what differs between the runs, as ``name: before → after``.
        not_comparable: groups of figures that cannot be compared, with the reason.
        changes: figures that can be compared.
    """

    same: tuple[str, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    conditions: tuple[str, ...]
    not_comparable: dict[str, str]
    changes: tuple[Change, ...]


def difference(before: Report, after: Report) -> Difference:
    """Compare two reports, leaving out what different conditions make incomparable.

    Counts are compared always. Accuracy needs the same images. Times, energy and memory need the same device, threads
    and main software; ratios of models that took turns need the same device, the same baseline and batch sizes. What
    else is relative to the baseline needs the same one, by its name and, where they are known, parameters and weights.
    """
    names = [model.id for model in before.models]
    others = [model.id for model in after.models]
    same = tuple(name for name in names if name in others)
    blocked = _blocked(before, after)
    comparable = _comparable(blocked)
    changes = [change for name in same for change in _changes(before.model(name), after.model(name), comparable)]
    return Difference(
        same=same, only_before=tuple(name for name in names if name not in others),
        only_after=tuple(name for name in others if name not in names), conditions=tuple(_conditions(before, after)),
        not_comparable=blocked, changes=tuple(changes),
    )  # fmt: skip


GROUPS = {"counts": COUNTED, "accuracy": JUDGED, "relative": RELATIVE, "times": TIMED, "ratios": RATIOS}
"""A figure in two groups needs what both need."""


def _comparable(blocked: Iterable[str]) -> list[str]:
    """Return the figures that no blocked group holds."""
    out = {name for group in blocked for name in GROUPS[group]}
    return [name for name in dict.fromkeys(chain.from_iterable(GROUPS.values())) if name not in out]


def _changes(before: ModelReport, after: ModelReport, names: Iterable[str]) -> list[Change]:
    found = []
    for name in names:
        old, new = figure(name).find(before).value, figure(name).find(after).value
        if old is not None and new is not None:
            found.append(Change(before.id, name, old, new, FIGURES[name].better))
    return found


ENV = ("device_name", "mig", "driver", "cuda", "cpu_model", "threads", "torch", "transformers", "pah_opt")


def _conditions(before: Report, after: Report) -> list[str]:
    """List what differs between the runs."""
    found = [_arrow(name, getattr(before.env, name), getattr(after.env, name)) for name in ENV]
    found += [
        _arrow(name, getattr(before.baseline.provenance, name), getattr(after.baseline.provenance, name))
        for name in ("weights_sha256", "dataset_revision", "split", "n_images")
    ]
    found.append(_arrow("baseline", before.baseline_id, after.baseline_id))
    found.append(_arrow("baseline's params", before.baseline.model.params, after.baseline.model.params))
    found += [
        _arrow(f"workload {name}", _workloads(before, name), _workloads(after, name))
        for name in ("batch_size", "dtype")
    ]
    for name, report in (("before", before), ("after", after)):
        found += [f"{name}: other processes used the device"] if report.env.contended else []
        found += [] if report.complete else [f"{name}: the run was interrupted"]
    return [text for text in found if text]


def _arrow(name: str, before: object, after: object) -> str:
    return "" if before == after else f"{name}: {_short(before)} → {_short(after)}"


def _short(value: object) -> str:
    text = "unknown" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:12]}…"


def _workloads(report: Report, name: str) -> tuple[object, ...]:
    timings: tuple[Timing, ...] = report.baseline.timings
    return tuple(getattr(timing.workload, name) for timing in timings)


def _blocked(before: Report, after: Report) -> dict[str, str]:
    """Say which groups of figures cannot be compared."""
    blocked: dict[str, str] = {}
    images = (before.baseline.provenance.dataset_revision, after.baseline.provenance.dataset_revision)
    if images[0] != images[1] or images[0] is None:
        blocked["accuracy"] = "the images, their order or their preprocessing differ"
    device = [name for name in ("device_name", "mig") if getattr(before.env, name) != getattr(after.env, name)]
    software = [
        name for name in ("threads", "torch", "cuda", "driver") if getattr(before.env, name) != getattr(after.env, name)
    ]
    batches = _workloads(before, "batch_size") != _workloads(after, "batch_size")
    baseline = ["the baseline"] if _has_another_baseline(before, after) else []
    if baseline or _has_other_weights(before, after):
        blocked["relative"] = _because(baseline, batches=False) if baseline else "the baseline's weights differ"
    if device or software or batches:
        blocked["times"] = _because([*device, *software], batches=batches)
    if device or batches or baseline:  # other weights of the same shapes are as fast
        blocked["ratios"] = _because([*device, *baseline], batches=batches)
    return blocked


def _has_another_baseline(before: Report, after: Report) -> bool:
    """Tell whether the baseline's name or its number of parameters differs."""
    params = before.baseline.model.params, after.baseline.model.params
    return before.baseline_id != after.baseline_id or _differ(*params)


def _has_other_weights(before: Report, after: Report) -> bool:
    return _differ(before.baseline.provenance.weights_sha256, after.baseline.provenance.weights_sha256)


def _differ(before: object, after: object) -> bool:
    """Tell whether both are known and differ."""
    return None not in (before, after) and before != after


def _because(names: list[str], *, batches: bool) -> str:
    causes = names + (["batch sizes"] if batches else [])
    return f"{', '.join(causes)} differ{'s' if len(causes) == 1 and not batches else ''}"
