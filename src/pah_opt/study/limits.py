"""Figures against limits: a figure exactly at its limit keeps it, whatever the last bit of a float says."""

from __future__ import annotations

TOLERANCE = 1e-9
"""Two of 200 images are 1.0000000000000009 points; no measured difference is as small as this."""


def at_most(figure: float, limit: float) -> bool:
    """Tell whether a figure is no larger than a limit.

    >>> at_most(100.0 * (0.96 - 0.95), 1.0)
    True
    """
    return figure <= limit + TOLERANCE


def at_least(figure: float, limit: float) -> bool:
    """Tell whether a figure is no smaller than a limit."""
    return figure >= limit - TOLERANCE
