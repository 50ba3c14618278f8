from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

from pah_opt.adapt.isolation import restored_flags, restored_randomness, seed_all


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_random_state_of_all_three_comes_back() -> None:
    seed_all(5)
    expected = draws()
    seed_all(5)
    with restored_randomness():
        seed_all(9)
        draws()
    assert draws() == expected


def test_seeds_of_different_parts_differ() -> None:
    with restored_randomness():
        seen = set()
        for parts in ((0, 0), (0, 1), (1, 0), (10, 0), (0, 10)):
            seed_all(*parts)
            seen.add(draws())
    assert len(seen) == 5


def test_flags_and_modes_come_back_and_gradients_go(model: nn.Module) -> None:
    model.get_submodule("classifier").requires_grad_(False)
    model.get_submodule("vit").train()
    flags = [parameter.requires_grad for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    with restored_flags(model):
        model.train()
        model.requires_grad_(True)
        model(torch.randn(1, 3, 16, 16)).logits.sum().backward()
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
