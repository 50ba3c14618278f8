"""The figures of a report by name: for gates, tables and the comparison of reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pah_opt.errors import MeasurementError, nearest_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import BaseModel

    from pah_opt.measure.model_report import ModelReport

Better = Literal["lower", "higher", "neither"]
EXTRA = "extra."
"""Prefix of figures that plugins add."""


class Found(NamedTuple):
    """A figure of one model; None with the reason."""

    value: float | None
    reason: str


class Figure(NamedTuple):
    """How one figure is found in a report.

    Args:
        find: finds it.
        better: whether lower or higher is better.
        summary: what it is.
    """

    find: Callable[[ModelReport], Found]
    better: Better
    summary: str


def _in(group: str, name: str) -> Callable[[ModelReport], Found]:
    return lambda report: _found(getattr(report, group), name)


def _found(group: BaseModel | None, name: str, missing: str = "not measured") -> Found:
    if group is None:
        return Found(None, missing)
    value: Any = getattr(group, name)
    reasons: dict[str, str] = getattr(group, "reasons", {})
    return Found(None if value is None else float(value), reasons.get(name, ""))


def _at_smallest(group: str, name: str) -> Callable[[ModelReport], Found]:
    def find(report: ModelReport) -> Found:
        timing = report.latency_timing
        return _found(timing and getattr(timing, group), name, "no timing was made")

    return find


def _at_largest(group: str, name: str) -> Callable[[ModelReport], Found]:
    def find(report: ModelReport) -> Found:
        timing = report.throughput_timing
        return _found(timing and getattr(timing, group), name, "no timing was made")

    return find


def _top1_drop(report: ModelReport) -> Found:
    delta = _found(report.accuracy, "top1_delta_pp")
    return Found(None if delta.value is None else 0.0 - delta.value, delta.reason)


def _group(
    find: Callable[[str, str], Callable[[ModelReport], Found]],
    group: str,
    prefix: str = "",
    /,
    **rows: tuple[Better, str],
) -> dict[str, Figure]:
    """Make the figures of one group of a report, from which way is better and what each is, by their names there."""
    return {prefix + name: Figure(find(group, name), better, summary) for name, (better, summary) in rows.items()}


FIGURES: dict[str, Figure] = {
    **_group(
        _in,
        "accuracy",
        top1=("higher", "share of test images classified correctly, 0 to 1"),
        top5=("higher", "share with the label among five guesses, 0 to 1"),
    ),
    "top1_drop_pp": Figure(_top1_drop, "lower", "top-1 lost against the baseline, percentage points"),
    **_group(
        _in,
        "accuracy",
        top1_delta_pp=("higher", "top-1 against the baseline, percentage points"),
        flips_to_wrong=("lower", "images only the baseline gets right"),
        flips_to_right=("higher", "images only this model gets right"),
        mcnemar_p=("neither", "p-value of McNemar's test against the baseline"),
        agreement_with_baseline=("higher", "share of images answered as the baseline does, 0 to 1"),
        nll=("lower", "mean negative log-likelihood, nats"),
        ece=("lower", "expected calibration error, 0 to 1"),
    ),
    **_group(
        _in,
        "vs_baseline",
        speedup_p50_x=("higher", "baseline's latency over this model's, smallest batch"),
        throughput_x=("higher", "throughput over the baseline's, largest batch"),
        size_x=("higher", "baseline's file size over this model's"),
        energy_x=("higher", "baseline's joules an image over this model's"),
        params_x=("higher", "baseline's parameters over this model's"),
        macs_x=("higher", "baseline's MACs over this model's"),
    ),
    **_group(
        _at_smallest,
        "latency",
        "latency_",
        p50_ms=("lower", "median latency, smallest batch, ms"),
        p90_ms=("lower", "90th percentile of latency, smallest batch, ms"),
        p99_ms=("lower", "99th percentile of latency, smallest batch, ms"),
        mean_ms=("lower", "mean latency, smallest batch, ms"),
    ),
    **_group(_at_smallest, "latency", compile_s=("lower", "seconds spent compiling")),
    **_group(_at_largest, "throughput", images_per_s=("higher", "throughput, largest batch, images/s")),
    **_group(
        _at_largest,
        "energy",
        j_per_image=("lower", "energy of an image, largest batch, J"),
        images_per_j=("higher", "images for a joule, largest batch"),
        mean_power_w=("lower", "mean power, largest batch, W"),
    ),
    **_group(
        _at_largest,
        "utilization",
        mfu_pct=("higher", "FLOP/s over the device's matrix rate, largest batch, percent"),
        gpu_pct_mean=("higher", "GPU utilization, percent"),
    ),
    **_group(
        _in,
        "memory",
        artifact_bytes=("lower", "bytes of the saved tensors"),
        weights_bytes=("lower", "bytes of all tensors in memory"),
        peak_allocated_bytes=("lower", "most bytes in CUDA tensors"),
        peak_reserved_bytes=("lower", "most bytes held by CUDA's allocator"),
        host_rss_peak_bytes=("lower", "most resident bytes of the process"),
    ),
    **_group(
        _in,
        "model",
        params=("lower", "parameters"),
        params_nonzero=("lower", "parameters that are not zero"),
        sparsity_pct=("higher", "share of zeros among the parameters, percent"),
        macs=("lower", "multiply-accumulates of one image"),
        flops=("lower", "floating-point operations of one image"),
    ),
}
"""Every figure that gates can name; plugins' figures are ``extra.<name>``."""


def figure_names(metrics: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names that gates may use.

    Args:
        metrics: names of the metrics that plugins register.
    """
    return (*FIGURES, *(f"{EXTRA}{name}" for name in metrics))


def figure(name: str) -> Figure:
    """Return how a figure is found.

    Raises:
        MeasurementError: there is none of that name; names the nearest.
    """
    if name.startswith(EXTRA):
        return _extra_figure(name.removeprefix(EXTRA))
    if name not in FIGURES:
        nearest = nearest_name(name, FIGURES)
        hint = f"did you mean {nearest!r}?" if nearest else f"figures: {', '.join(FIGURES)}, extra.<name of a metric>"
        raise MeasurementError(f"there is no figure {name!r}; {hint}")
    return FIGURES[name]


def _extra_figure(name: str) -> Figure:
    def find(report: ModelReport) -> Found:
        if name not in report.extra:
            known = ", ".join(report.extra) or "none"
            return Found(None, f"no plugin measured it for this model (measured: {known})")
        return Found(report.extra[name].value, report.extra[name].reason or "")

    return Figure(find, "neither", "added by a plugin")
