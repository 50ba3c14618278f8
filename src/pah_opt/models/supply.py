"""How many calibration images there must be, and a share of those that there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.errors import DataError

if TYPE_CHECKING:
    from pah_opt.optimizer import Context, Needs
    from pah_opt.splits import Split

FEWEST_IMAGES = 8
"""With fewer calibration images, what is seen says little about other images."""


def evenly_spaced(split: Split, count: int) -> Split:
    """Return at most ``count`` images of a split, spread evenly over its order."""
    total = len(split)
    return split if total <= count else split.subset([position * total // count for position in range(count)])


def enough_images(split: Split | None, count: int, purpose: str) -> Split:
    """Return at most ``count`` images of a split.

    Raises:
        DataError: there are none, or too few to say anything.
    """
    return evenly_spaced(_not_too_few(split, purpose), max(count, FEWEST_IMAGES))


def supply_problems(needs: Needs, context: Context) -> list[str]:
    """Say that a step will have too few of the calibration images that it needs, before any step runs.

    Args:
        needs: of the step.
        context: knows how many images there will be.
    """
    short = (needs.calibration or needs.labels) and context.calibration_count < FEWEST_IMAGES
    return [too_few(context.calibration_count)] if short else []


def check_supply(split: Split | None, needs: Needs, purpose: str) -> None:
    """Check that a step has enough of the calibration images it looks at; optional ones only where there are any.

    Raises:
        DataError: there are none, or too few to say anything.
    """
    if needs.calibration or needs.labels or (needs.optional_calibration and split is not None):
        _not_too_few(split, purpose)


def _not_too_few(split: Split | None, purpose: str) -> Split:
    found = 0 if split is None else len(split)
    if split is None or found < FEWEST_IMAGES:
        raise DataError(f"{purpose} {too_few(found)}")
    return split


def too_few(found: int) -> str:
    """Say that so few calibration images show too little."""
    return f"needs at least {FEWEST_IMAGES} calibration images and has {found}; pass data with more training images"


def has_enough_images(split: Split | None) -> bool:
    """Tell whether there are calibration images, and not too few to say anything."""
    return split is not None and len(split) >= FEWEST_IMAGES
