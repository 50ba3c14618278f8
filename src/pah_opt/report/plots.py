"""PNG plots with matplotlib (the extra ``plots``); the HTML page draws its own."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pah_opt.errors import MeasurementError, MissingBackendError
from pah_opt.report.pareto import AXES, Axis, front, labels, points

if TYPE_CHECKING:
    from os import PathLike

    from pah_opt.report.schema import Curve, Report


def save_tradeoff(report: Report, path: str | PathLike[str], *, against: Axis = "size") -> Path:
    """Plot accuracy against size, latency or energy, with the Pareto front; without accuracy, throughput instead.

    Args:
        report: what was measured.
        path: a PNG file, replaced whole.
        against: what is on the horizontal axis.

    Raises:
        MissingBackendError: matplotlib is not installed.
        MeasurementError: no model has both figures, or the file cannot be written.
    """
    shown, height = points(report, against)
    if not shown:
        raise MeasurementError(
            f"no model of the report has both {AXES[against].title} and {height.title}, so there is nothing to plot"
        )
    figure, axes = _figure()
    best = front(shown, higher_is_better=height.higher)
    axes.step(*zip(*((p.x, p.y) for p in best), strict=True), where="post", color="0.6", zorder=1)
    for point in shown:
        axes.scatter(point.x, point.y, s=50, zorder=2, color="tab:blue" if point in best else "tab:gray")
    for name, x, y in labels(shown):
        axes.annotate(name, (x, y), textcoords="offset points", xytext=(6, 6), fontsize=8)
    axes.set_xlabel(AXES[against].label)
    axes.set_ylabel(height.label)
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    return _save(figure, path)


def save_curve(curve: Curve, path: str | PathLike[str], *, title: str = "") -> Path:
    """Plot a curve, such as a loss over steps of training.

    Raises:
        MissingBackendError: matplotlib is not installed.
        MeasurementError: the file cannot be written.
    """
    figure, axes = _figure()
    axes.plot(curve.x, curve.y, linewidth=1.5)
    axes.set_xlabel(curve.x_label)
    axes.set_ylabel(curve.y_label)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    return _save(figure, path)


def _figure() -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure  # not pyplot: no window system, no global state
    except ImportError as error:
        raise MissingBackendError("plots need matplotlib; pip install 'pah-opt[plots]'") from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, path: str | PathLike[str]) -> Path:
    from pah_opt.storage.atomic import write_bytes

    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, picture.getvalue())
    except OSError as error:
        raise MeasurementError(f"{target} cannot be written: {error}") from error
    return target
