"""What is plotted against what, and which models nothing else beats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from pah_opt.report.figures import figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.measure.model_report import ModelReport
    from pah_opt.report.schema import Report

Axis = Literal["latency", "size", "energy"]


class AxisOf(NamedTuple):
    """One axis of a plot.

    Args:
        figures: names of the figures to take, the first that is known.
        scale: what values are multiplied by.
        title: what it is.
        label: title and unit.
        higher: whether higher is better.
    """

    figures: tuple[str, ...]
    scale: float
    title: str
    label: str
    higher: bool = False


AXES: dict[Axis, AxisOf] = {
    "latency": AxisOf(("latency_p50_ms",), 1.0, "latency", "median latency, ms"),
    "size": AxisOf(("artifact_bytes", "weights_bytes"), 1e-6, "size", "size, MB"),
    "energy": AxisOf(("j_per_image",), 1.0, "energy", "energy, J an image"),
}
ACCURACY = AxisOf(("top1",), 100.0, "top-1 accuracy", "top-1, %", higher=True)
THROUGHPUT = AxisOf(("images_per_s",), 1.0, "throughput", "throughput, images/s", higher=True)
"""Drawn upwards where no model has an accuracy."""


NEAR = 0.01
"""Points closer than this share of the plot share a label."""


class Point(NamedTuple):
    """One model in a plot."""

    name: str
    x: float
    y: float


def points(report: Report, against: Axis) -> tuple[list[Point], AxisOf]:
    """Return the models that have both figures, and what is drawn upwards."""
    for height in (ACCURACY, THROUGHPUT):
        found = [
            Point(model.id, x, y)
            for model in report.models
            if (x := _value(model, AXES[against])) is not None and (y := _value(model, height)) is not None
        ]
        if found:
            return found, height
    return [], ACCURACY


def _value(model: ModelReport, axis: AxisOf) -> float | None:
    values = (figure(name).find(model).value for name in axis.figures)
    known = next((value for value in values if value is not None), None)
    return None if known is None else known * axis.scale


def front(shown: Sequence[Point], *, higher_is_better: bool = True) -> list[Point]:
    """Return the points that no other beats: less to the left, more upwards; from left to right.

    >>> front([Point("a", 1, 90), Point("b", 2, 95), Point("c", 3, 94)])
    [Point(name='a', x=1, y=90), Point(name='b', x=2, y=95)]
    """
    sign = 1.0 if higher_is_better else -1.0
    best: list[Point] = []
    for point in sorted(shown, key=lambda p: (p.x, -sign * p.y)):
        if not best or sign * point.y > sign * best[-1].y or (point.x, point.y) == (best[-1].x, best[-1].y):
            best.append(point)
    return best


def labels(shown: Sequence[Point]) -> list[Point]:
    """Return where to write which names: models that lie on one another share a label.

    >>> labels([Point("a", 0, 90), Point("b", 10, 80), Point("c", 0.01, 90)])
    [Point(name='a, c', x=0, y=90), Point(name='b', x=10, y=80)]
    """
    if not shown:
        return []
    width, height = (max(values) - min(values) or 1.0 for values in ([p.x for p in shown], [p.y for p in shown]))
    places: list[Point] = []
    for point in shown:
        for at, place in enumerate(places):
            if abs(place.x - point.x) < NEAR * width and abs(place.y - point.y) < NEAR * height:
                places[at] = place._replace(name=f"{place.name}, {point.name}")
                break
        else:
            places.append(point)
    return places
