from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from pah_opt.models import logits_of
from pah_opt.testing import TINY_MODELS, tiny_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_tiny_model_is_the_same_for_the_same_seed_and_leaves_the_global_generator_alone(name: str) -> None:
    make: Callable[..., nn.Module] = TINY_MODELS[name]
    torch.manual_seed(5)
    first = make(seed=3).state_dict()
    drawn = torch.rand(1)
    second = make(seed=3).state_dict()
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = make(seed=4).state_dict()
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_tiny_model_tells_images_apart_and_has_no_parameter_of_only_zeros(name: str) -> None:
    model = TINY_MODELS[name]()
    logits = logits_of(model(tiny_images(3)))
    assert logits.shape == (3, 10)
    assert (logits[0] - logits[1]).abs().max() > 1e-4
    assert all(bool(parameter.any()) for parameter in model.parameters())


def test_testing_is_imported_without_pytest_and_without_torch() -> None:
    code = "import sys, pah_opt.testing; sys.exit(any(name in sys.modules for name in ('pytest', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
