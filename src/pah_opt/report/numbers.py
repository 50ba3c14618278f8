"""How figures are written for people."""

from __future__ import annotations

DASH = "\u2013"
"""Written where there is no figure, and between the ends of an interval."""
TIMES = "\u00d7"
"""Written behind ratios."""


def decimals(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """Write with a fixed number of decimals."""
    return DASH if value is None else f"{value:{'+' if sign else ''},.{digits}f}"


def figures(value: float | None, count: int = 3) -> str:
    """Write with ``count`` significant figures, never in exponents.

    >>> figures(0.012345), figures(1234.5), figures(12.345)
    ('0.0123', '1,234', '12.3')
    """
    if value is None:
        return DASH
    if value == 0:
        return "0"
    digits = max(0, count - len(str(int(abs(value)))) if abs(value) >= 1 else count - 1 + _leading_zeros(abs(value)))
    return f"{value:,.{digits}f}"


def _leading_zeros(value: float) -> int:
    zeros = 0
    while value < 0.9999995 and zeros < 12:
        value *= 10
        zeros += 1
    return zeros


def times(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """Write a ratio, with its interval where there is one: ``2.31x (2.28-2.35)``, with real signs."""
    if value is None:
        return DASH
    return f"{value:.2f}{TIMES}" + (f" ({interval[0]:.2f}{DASH}{interval[1]:.2f})" if interval else "")


def megabytes(value: float | None) -> str:
    """Write bytes in megabytes (10⁶)."""
    return DASH if value is None else figures(value / 1e6, 4 if value >= 1e9 else 3)


def scaled(value: float | None) -> str:
    """Write a count with k, M or G.

    >>> scaled(86_567_656)
    '86.6M'
    """
    if value is None:
        return DASH
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return figures(value / unit) + letter
    return f"{value:,.0f}"
