"""Leave no trace: a model's flags and modes, and everybody's random state, come back as they were."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


def _gpus() -> list[int]:
    """Return the GPUs of a process that uses any; in one that uses none, asking for their states would start CUDA."""
    in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return list(range(torch.cuda.device_count())) if in_use else []


@contextmanager
def restored_randomness() -> Iterator[None]:
    """Give Python's, NumPy's and torch's random state back when the block ends."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # third parties use it
    with torch.random.fork_rng(devices=_gpus()):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # third parties use it


def seed_all(*parts: int) -> None:
    """Seed all three generators from numbers, such as a seed, an update and a process."""
    mixed = int(np.random.SeedSequence(parts).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)  # third parties use it
    torch.default_generator.manual_seed(mixed)  # torch.manual_seed would seed GPUs that are not in use as well
    for gpu in _gpus():
        torch.cuda.default_generators[gpu].manual_seed(mixed)


@contextmanager
def restored_flags(model: nn.Module) -> Iterator[None]:
    """Give ``requires_grad`` of every parameter and ``training`` of every module back, and drop gradients."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None
