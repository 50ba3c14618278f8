"""Limits that a report must keep."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pah_opt.errors import GateFailedError, ReportError
from pah_opt.measure.schema import GateResult
from pah_opt.recipe import Gate
from pah_opt.report.figures import AGAINST_BASELINE, figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pah_opt.measure.model_report import ModelReport
    from pah_opt.report.schema import Report


def check_gates(
    report: Report, gates: Mapping[str, Gate], *, models: Iterable[str] | None = None
) -> dict[str, tuple[GateResult, ...]]:
    """Hold a report against limits.

    Args:
        report: what was measured.
        gates: limits by the name of a figure, such as ``{"top1_drop_pp": Gate(max=1.0)}``.
        models: which models must keep them; every one but the baseline by default.

    Returns:
        The results of each model. A figure that is null fails its gate, with the reason.

    Raises:
        ReportError: a figure or a model is unknown (with the nearest name), or there is no model to check.
    """
    for name in gates:
        figure(name)
    chosen = [report.model(name) for name in models] if models is not None else list(report.candidates)
    if not chosen:
        raise ReportError(
            f"the report holds {report.baseline_id!r} only, and gates are for what is compared with it; name it with "
            "--model to hold it against absolute limits"
        )
    return {model.id: tuple(_result(model, name, gate) for name, gate in gates.items()) for model in chosen}


def model_gates(model: ModelReport, gates: Mapping[str, Gate], *, is_baseline: bool) -> tuple[GateResult, ...]:
    """Hold one model against the limits of its recipe; a baseline's limits against a baseline are not checked."""
    return tuple(
        _unchecked(model, name, gate) if is_baseline and name in AGAINST_BASELINE else _result(model, name, gate)
        for name, gate in gates.items()
    )


def _unchecked(model: ModelReport, name: str, gate: Gate) -> GateResult:
    limit = _limit(gate)
    message = f"{model.id}: {name} is against a baseline, and there is none; the limit is {limit}"
    return GateResult(metric=name, limit=limit, value=None, passed=None, message=message)


def _limit(gate: Gate) -> str:
    bounds = ((">=", gate.min), ("<=", gate.max))
    return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


def _result(model: ModelReport, name: str, gate: Gate) -> GateResult:
    value, reason = figure(name).find(model)
    limit = _limit(gate)
    passed = value is not None and not _outside(value, gate)
    shown = f"is {value:.6g}" if value is not None else f"is not known ({reason or 'not measured'})"
    message = f"{model.id}: {name} {shown}, the limit is {limit}"
    return GateResult(metric=name, limit=limit, value=value, passed=passed, message=message)


def _outside(value: float, gate: Gate) -> bool:
    return (gate.max is not None and value > gate.max) or (gate.min is not None and value < gate.min)


def with_gates(report: Report, results: Mapping[str, tuple[GateResult, ...]]) -> Report:
    """Return the report with gate results written into its models (after those that are there)."""
    models = tuple(_having(model, results.get(model.id, ())) for model in report.models)
    return report.model_copy(update={"models": models})


def _having(model: ModelReport, results: tuple[GateResult, ...]) -> ModelReport:
    if not results:
        return model
    versus = model.vs_baseline.model_copy(update={"gates": (*model.vs_baseline.gates, *results)})
    return model.model_copy(update={"vs_baseline": versus})


def require_gates(report: Report) -> None:
    """Raise unless every gate that was checked in the report passed.

    Raises:
        GateFailedError: lists every gate that failed, with value and limit.
    """
    failed = [gate.message for model in report.models for gate in model.vs_baseline.gates if gate.passed is False]
    if failed:
        count = f"{len(failed)} gate{'s' if len(failed) > 1 else ''} failed"
        raise GateFailedError("\n".join([f"{count}:", *(f"  - {message}" for message in failed)]))


def read_limits(minima: Iterable[str], maxima: Iterable[str]) -> dict[str, Gate]:
    """Read limits written as ``name=value``.

    >>> read_limits(["throughput_x=2"], ["top1_drop_pp=1"])["top1_drop_pp"].max
    1.0

    Raises:
        ReportError: one is not of that form, names an unknown figure, or one that was named already.
    """
    lows, highs = _each_once("--min", minima), _each_once("--max", maxima)
    names = dict.fromkeys((*lows, *highs))
    return {name: _gate(name, lows.get(name), highs.get(name)) for name in names}


def _each_once(option: str, texts: Iterable[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in texts:
        name, value = _read(text)
        if name in found:
            raise ReportError(f"{option} is given twice for {name} ({found[name]:g} and {value:g}); give it once")
        found[name] = value
    return found


def _gate(name: str, low: float | None, high: float | None) -> Gate:
    if low is not None and high is not None and low > high:
        raise ReportError(f"{name} cannot be at least {low:g} and at most {high:g}")
    return Gate(min=low, max=high)


def _read(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    figure(name.strip())
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not equals or not math.isfinite(number):
        raise ReportError(f"the limit {text!r} is not of the form name=number, such as top1_drop_pp=1")
    return name.strip(), number
