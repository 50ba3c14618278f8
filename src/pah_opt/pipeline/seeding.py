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
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's generators inside the block; restore all of them after it.

    Args:
        seed: for all generators.
        device: where the model is; torch's generators of other GPUs are left alone.
    """
    gpus = [device.index or 0] if device.type == "cuda" else []
    python_state, numpy_state = random.getstate(), np.random.get_state()  # third parties use it
    with torch.random.fork_rng(devices=gpus):
        random.seed(seed)
        np.random.seed(seed)  # third parties use it
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        for gpu in gpus:
            torch.cuda.default_generators[gpu].manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # third parties use it
