"""Plots as plain SVG: no script, colours from the page's style sheet, every value in a tooltip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from pah_opt.report.numbers import figures
from pah_opt.report.pareto import AxisOf, Point, front, labels

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pah_opt.report.schema import Curve

WIDTH, HEIGHT = 440, 310
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 44
ROW = 34
"""Height of one model's row in a plot of distributions."""
LETTER = 6.9
"""Mean width of a letter at the size of labels."""


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels.

    Args:
        low, high: values at the two ends.
        start, end: pixels there.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values inside the scale."""
        step = _round_step((self.high - self.low) / about)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _round_step(step: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(step))
    return next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= step * 0.999)


def scale_over(values: Sequence[float], start: float, end: float, *, margin: float = 0.08, zero: bool = False) -> Scale:
    """Make a scale that holds all values with some room at both ends; from zero when asked."""
    low, high = min(values), max(values)
    room = (high - low) * margin or abs(high) * 0.05 or 1.0
    return Scale(0.0 if zero else low - room, high + room, start, end)


def scatter(
    shown: Sequence[Point],
    across: AxisOf,
    upwards: AxisOf,
    *,
    title: str | None = None,
    named: Collection[str] | None = None,
) -> str:
    """Draw models as points, with a line along those that no other beats.

    Args:
        shown: the models.
        across: what is drawn to the right.
        upwards: what is drawn upwards.
        title: what the drawing is, for those who cannot see it; made of the axes by default.
        named: models whose names are written beside their points; all of them by default.
    """
    x = scale_over([p.x for p in shown], LEFT, WIDTH - RIGHT, margin=0.15)
    y = scale_over([p.y for p in shown], HEIGHT - BOTTOM, TOP, margin=0.12)
    best = front(shown, higher_is_better=upwards.higher)
    parts = [_grid(x, y, across.label, upwards.label), _front(best, x, y)]
    for point in sorted(shown, key=best.count):
        words = f"{point.name}: {across.label} {figures(point.x, 4)}; {upwards.label} {figures(point.y, 4)}"
        kind = "point best" if point in best else "point"
        place = f'cx="{x(point.x):.1f}" cy="{y(point.y):.1f}"'
        parts.append(f'<circle class="{kind}" {place} r="6"><title>{escape(words)}</title></circle>')
    parts += _labels(shown if named is None else [point for point in shown if point.name in named], x, y)
    return _svg(HEIGHT, title or f"{upwards.title} against {across.title}", parts)


def _front(best: Sequence[Point], x: Scale, y: Scale) -> str:
    steps = "".join(f" H{x(p.x):.1f} V{y(p.y):.1f}" for p in best[1:])
    return f'<path class="front" d="M{x(best[0].x):.1f} {y(best[0].y):.1f}{steps}"/>'


@dataclass(frozen=True)
class _Frame:
    """A rectangle that is taken."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Frame) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def _labels(shown: Sequence[Point], x: Scale, y: Scale) -> list[str]:
    """Write each name beside its point, where it covers no other point or name."""
    taken = [_Frame(x(p.x) - 6, y(p.y) - 6, x(p.x) + 6, y(p.y) + 6) for p in shown]
    drawn = []
    for place in labels(shown):
        name = place.name if len(place.name) <= 34 else f"{place.name[:33]}…"
        frame = _free_frame(len(name) * LETTER, x(place.x), y(place.y), taken)
        taken.append(frame)
        drawn.append(_text(name, frame.left, frame.bottom - 3, anchor="start"))
    return drawn


def _free_frame(width: float, x: float, y: float, taken: Sequence[_Frame]) -> _Frame:
    tried = []
    for down in (-8, 18, -22, 32, -36, 46):
        for left in (x + 8, x - 8 - width):
            frame = _Frame(left, y + down - 11, left + width, y + down + 3)
            if LEFT <= left <= WIDTH - RIGHT - width and not any(frame.meets(other) for other in taken):
                return frame
            tried.append(frame)
    inside = [frame for frame in tried if frame.left >= LEFT and frame.right <= WIDTH - RIGHT]
    return (inside or tried)[0]


def _text(text: str, x: float, y: float, *, kind: str = "", anchor: str = "middle") -> str:
    css = f' class="{kind}"' if kind else ""
    return f'<text{css} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _grid(x: Scale, y: Scale, across: str, upwards: str) -> str:
    parts = _verticals(x, HEIGHT - BOTTOM)
    for value in y.ticks():
        at = y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(_tick(value, y), LEFT - 8, at + 4, kind="tick", anchor="end"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="translate(13 {middle}) rotate(-90)"'
    parts.append(_text(across, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, kind="axis"))
    parts.append(f'<text class="axis" {turned} text-anchor="middle">{escape(upwards)}</text>')
    return "".join(parts)


def _verticals(x: Scale, bottom: float) -> list[str]:
    parts = []
    for value in x.ticks():
        parts.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{bottom:.1f}"/>')
        parts.append(_text(_tick(value, x), x(value), bottom + 16, kind="tick"))
    return parts


def _tick(value: float, scale: Scale) -> str:
    ticks = scale.ticks()
    step = ticks[1] - ticks[0] if len(ticks) > 1 else abs(value) or 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if round(step, digits) != round(step, digits + 2):
        digits += 1  # steps of 2.5
    return f"{value + 0.0:,.{digits}f}"


def distributions(samples: Sequence[tuple[str, Sequence[float]]], label: str) -> str:
    """Draw a row for each model: the middle half as a box, the median, and whiskers to the 5th and 95th percentile."""
    rows = [(name, np.percentile(values, [5, 25, 50, 75, 95])) for name, values in samples]
    height = TOP + len(rows) * ROW + BOTTOM
    left = LEFT + 60
    x = scale_over([float(marks[-1]) for _, marks in rows], left, WIDTH - RIGHT, zero=True)
    parts = [*_verticals(x, height - BOTTOM), _text(label, (left + WIDTH - RIGHT) / 2, height - 6, kind="axis")]
    parts += [_row(name, marks, x, TOP + number * ROW + ROW / 2) for number, (name, marks) in enumerate(rows)]
    return _svg(height, f"distribution of {label}", parts)


def _row(name: str, marks: np.ndarray[tuple[int], np.dtype[np.float64]], x: Scale, middle: float) -> str:
    low, first, median, third, high = (x(float(mark)) for mark in marks)
    short = name if len(name) <= 17 else f"{name[:16]}…"
    _, quarter, half, three_quarters, _ = (figures(float(mark), 4) for mark in marks)
    title = f"{name}: median {half}, middle half {quarter} to {three_quarters}"
    top, width = middle - 8, max(third - first, 1.5)
    return (
        f"<g><title>{escape(title)}</title>{_text(short, LEFT + 50, middle + 4, anchor='end')}"
        f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>'
        f'<rect class="box" x="{first:.1f}" y="{top:.1f}" width="{width:.1f}" height="16" rx="2"/>'
        f'<line class="mid" x1="{median:.1f}" x2="{median:.1f}" y1="{top:.1f}" y2="{middle + 8:.1f}"/></g>'
    )


def line(curve: Curve, title: str) -> str:
    """Draw a curve."""
    x = scale_over(curve.x, LEFT, WIDTH - RIGHT, margin=0.02)
    y = scale_over(curve.y, HEIGHT - BOTTOM, TOP)
    points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(curve.x, curve.y, strict=True))
    drawn = f'<polyline class="curve" points="{points}"/>'
    return _svg(HEIGHT, title, [_grid(x, y, curve.x_label, curve.y_label), drawn])


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
