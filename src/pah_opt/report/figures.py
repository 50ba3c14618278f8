"""The figures of a report by name: for gates, tables and the comparison of reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pah_opt.errors import ReportError, nearest_name

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
        unit: what it is counted in.
        summary: what it is.
        reading: how to read it.
    """

    find: Callable[[ModelReport], Found]
    better: Better
    unit: str
    summary: str
    reading: str


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
    **rows: tuple[Better, str, str, str],
) -> dict[str, Figure]:
    """Make the figures of one group of a report.

    Args:
        find: from the group and a figure's name there, makes what finds it.
        group: name of the group.
        prefix: what comes before the names.
        rows: which way is better, the unit, what it is and how to read it, by the figures' names in the group.
    """
    return {prefix + name: Figure(find(group, name), *row) for name, row in rows.items()}


FIGURES: dict[str, Figure] = {
    **_group(
        _in,
        "accuracy",
        top1=("higher", "share", "share of test images classified correctly, 0 to 1",
              "One image of n is worth 1/n: 0.01 on 100 images, which is why differences have an interval."),
        top5=("higher", "share", "share with the label among five guesses, 0 to 1", "Null below six classes."),
    ),
    "top1_drop_pp": Figure(
        _top1_drop, "lower", "points", "top-1 lost against the baseline, percentage points",
        "The one to gate: top1_delta_pp with the other sign. Noise of a few images is no loss: see mcnemar_p.",
    ),
    **_group(
        _in,
        "accuracy",
        top1_delta_pp=("higher", "points", "top-1 against the baseline, percentage points",
                       "Read it with its interval, top1_ci95_pp: where that holds 0, there may be no change."),
        flips_to_wrong=("lower", "images", "images only the baseline gets right",
                        "With flips_to_right: two models of equal top-1 may still disagree on many images."),
        flips_to_right=("higher", "images", "images only this model gets right", "See flips_to_wrong."),
        mcnemar_p=("neither", "probability", "p-value of McNemar's test against the baseline",
                   "How often chance alone makes flips so uneven where both models are equally good."),
        agreement_with_baseline=("higher", "share", "share of images answered as the baseline does, 0 to 1",
                                 "Falls before top-1 does: needs no labels to be right."),
        nll=("lower", "nats", "mean negative log-likelihood, nats",
             "Rises where a model is sure and wrong; compare on the same images only."),
        ece=("lower", "share", "expected calibration error, 0 to 1",
             "Distance between how sure the model says it is and how often it is right."),
    ),
    **_group(
        _in,
        "vs_baseline",
        speedup_p50_x=("higher", "ratio", "baseline's latency over this model's, smallest batch",
                       "2: twice as fast. The median of ratios of rounds in turns; its interval stands beside it."),
        throughput_x=("higher", "ratio", "throughput over the baseline's, largest batch",
                      "What a server gains; latency of one image may not follow."),
        size_x=("higher", "ratio", "baseline's file size over this model's", "4: a quarter of the file."),
        energy_x=("higher", "ratio", "baseline's joules an image over this model's", "Null where there is no counter."),
        params_x=("higher", "ratio", "baseline's parameters over this model's", "Zeros count as parameters."),
        macs_x=("higher", "ratio", "baseline's MACs over this model's",
                "Arithmetic, not time: zeros and storage types don't change it."),
    ),
    **_group(
        _at_smallest,
        "latency",
        "latency_",
        p50_ms=("lower", "ms", "median latency, smallest batch, ms", "What one request usually waits for."),
        p90_ms=("lower", "ms", "90th percentile of latency, smallest batch, ms", "Null below 100 passes."),
        p99_ms=("lower", "ms", "99th percentile of latency, smallest batch, ms",
                "What the slowest requests wait for; null below 1,000 passes."),
        mean_ms=("lower", "ms", "mean latency, smallest batch, ms",
                 "Far above the median: something else ran on the machine."),
    ),
    **_group(_at_smallest, "latency", compile_s=("lower", "s", "seconds spent compiling", "Paid once in a process.")),
    **_group(
        _at_largest,
        "throughput",
        images_per_s=("higher", "images/s", "throughput, largest batch, images/s",
                      "Passes back to back; not batch size over latency."),
    ),
    **_group(
        _at_largest,
        "energy",
        j_per_image=("lower", "J/image", "energy of an image, largest batch, J", "Idle power is part of it."),
        images_per_j=("higher", "images/J", "images for a joule, largest batch", "The same, the other way up."),
        mean_power_w=("lower", "W", "mean power, largest batch, W", "Lower power for longer may cost more energy."),
    ),
    **_group(
        _at_largest,
        "utilization",
        mfu_pct=("higher", "percent", "FLOP/s over the device's matrix rate, largest batch, percent",
                 "Low: time goes to launches and memory, not to products."),
        gpu_pct_mean=("higher", "percent", "GPU utilization, percent",
                      "Share of time in which some kernel ran, however small."),
    ),
    **_group(
        _in,
        "memory",
        artifact_bytes=("lower", "bytes", "bytes of the saved tensors", "Scales are counted; zeros cost a bit each."),
        weights_bytes=("lower", "bytes", "bytes of all tensors in memory", "Zeros cost as much as other numbers here."),
        peak_allocated_bytes=("lower", "bytes", "most bytes in CUDA tensors", "Activations included; null on a CPU."),
        peak_reserved_bytes=("lower", "bytes", "most bytes held by CUDA's allocator",
                             "What other programs cannot have; above peak_allocated_bytes."),
        host_rss_peak_bytes=("lower", "bytes", "most resident bytes of the process",
                             "Libraries and the other models included: compare between runs only."),
    ),
    **_group(
        _in,
        "model",
        params=("lower", "number", "parameters", "Packed weights are counted as the weights they hold."),
        params_nonzero=("lower", "number", "parameters that are not zero", "What unstructured pruning leaves."),
        sparsity_pct=("higher", "percent", "share of zeros among the parameters, percent",
                      "Of all parameters, so below what was asked of the layers; no speed by itself."),
        macs=("lower", "number", "multiply-accumulates of one image", "Counted for dense products of these shapes."),
        flops=("lower", "number", "floating-point operations of one image", "Twice the MACs."),
    ),
}  # fmt: skip
"""Every figure that gates can name; plugins' figures are ``extra.<name>``."""
AGAINST_BASELINE = frozenset(
    {
        "top1_drop_pp", "top1_delta_pp", "flips_to_wrong", "flips_to_right", "mcnemar_p", "agreement_with_baseline",
        "speedup_p50_x", "throughput_x", "size_x", "energy_x", "params_x", "macs_x",
    }
)  # fmt: skip
"""Those that a baseline itself cannot have."""


def describe_figures() -> list[dict[str, str]]:
    """Return each figure's name, unit, better direction, what it is and how to read it."""
    return [
        {"name": name, **{part: getattr(figure, part) for part in ("unit", "better", "summary", "reading")}}
        for name, figure in FIGURES.items()
    ]


def figure_names(metrics: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names that gates may use.

    Args:
        metrics: names of the metrics that plugins register.
    """
    return (*FIGURES, *(f"{EXTRA}{name}" for name in metrics))


def figure(name: str) -> Figure:
    """Return how a figure is found.

    Raises:
        ReportError: there is none of that name; names the nearest.
    """
    if name.startswith(EXTRA):
        return _extra_figure(name.removeprefix(EXTRA))
    if name not in FIGURES:
        nearest = nearest_name(name, FIGURES)
        hint = f"did you mean {nearest!r}?" if nearest else f"figures: {', '.join(FIGURES)}, extra.<name of a metric>"
        raise ReportError(f"there is no figure {name!r}; {hint}")
    return FIGURES[name]


def _extra_figure(name: str) -> Figure:
    def find(report: ModelReport) -> Found:
        if name not in report.extra:
            known = ", ".join(report.extra) or "none"
            return Found(None, f"no plugin measured it for this model (measured: {known})")
        return Found(report.extra[name].value, report.extra[name].reason or "")

    return Figure(find, "neither", "", "added by a plugin", "See the plugin's own words.")
