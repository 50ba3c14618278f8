"""What the exit status of every command means."""

from __future__ import annotations

DONE = 0
FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130

MEANINGS = {
    DONE: "done",
    FAILED: "it failed",
    BAD_INPUT: "the input cannot be used (nothing was run)",
    INTERRUPTED: "interrupted",
}
"""In words; ``--help`` and the reference show them."""
