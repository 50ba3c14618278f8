"""Seeds for one step, and the caller's random state given back afterwards."""

from __future__ import annotations

import hashlib
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def step_seed(recipe_seed: int, index: int, name: str) -> int:
    """Return the seed of one step: fixed by the recipe's seed, the step's place and its Optimizer."""
    digest = hashlib.sha256(f"{recipe_seed}/{index}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's generators inside the block; restore all three after it."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # third parties use it
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed)  # third parties use it
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # third parties use it
