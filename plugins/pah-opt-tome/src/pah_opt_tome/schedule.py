"""How many tokens each block merges: plain integers, fixed before a model runs, so that every shape is known."""

from __future__ import annotations

from typing import Literal

Schedule = Literal["constant", "decreasing"]


def merges_per_block(patches: int, blocks: int, *, r: int | None, keep: float, schedule: Schedule) -> tuple[int, ...]:
    """Return how many tokens each block merges away.

    A block can merge half of the patch tokens that reach it, rounded down. What it cannot merge is left to the blocks
    after it when a share is asked for, and goes to those before it where they could not either; it is not merged when
    ``r`` is given.

    Args:
        patches: patch tokens that reach the first block.
        blocks: number of blocks.
        r: tokens per block (their mean, when decreasing); None to reach ``keep`` instead.
        keep: share of the patch tokens that leave the last block, where ``r`` is None.
        schedule: ``constant``, or ``decreasing`` linearly from twice the mean to nothing.

    >>> merges_per_block(196, 12, r=8, keep=0.5, schedule="constant")
    (8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8)
    >>> merges_per_block(196, 4, r=6, keep=0.5, schedule="decreasing")
    (12, 8, 4, 0)
    """
    goal = max(1, round(keep * patches))
    total = r * blocks if r is not None else patches - goal
    wanted = _spread(total, blocks, schedule)
    merges: list[int] = []
    left, owed = patches, 0
    for index, number in enumerate(wanted):
        # The blocks after this one can halve what they get and no more: at least so much must go here.
        least = left - (goal << (blocks - 1 - index)) if r is None else 0
        possible = min(max(number + owed, least, 0), left // 2)
        owed = number + owed - possible if r is None else 0
        merges.append(possible)
        left -= possible
    return tuple(merges)


def _spread(total: int, blocks: int, schedule: Schedule) -> list[int]:
    """Split a total into whole numbers, as evenly or as linearly as whole numbers allow."""
    shares = [1.0] * blocks
    if schedule == "decreasing" and blocks > 1:
        shares = [2.0 * (blocks - 1 - index) / (blocks - 1) for index in range(blocks)]
    ends = [round(total * sum(shares[: index + 1]) / sum(shares)) for index in range(blocks)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
