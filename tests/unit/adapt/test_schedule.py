from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pah_opt.adapt import TrainSettings
from pah_opt.adapt.schedule import adamw, decays, lr_factor, set_lr
from pah_opt.testing.models import tiny_dinov2


@given(total=st.integers(1, 500), warmup=st.floats(0, 0.99))
def test_rate_rises_to_its_highest_and_falls_from_there(total: int, warmup: float) -> None:
    factors = [lr_factor(step, total, warmup) for step in range(total)]
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert all(0.0 < factor <= 1.0 for factor in factors)


def test_rate_reaches_its_highest_and_ends_near_zero() -> None:
    factors = [lr_factor(step, 1000, 0.1) for step in range(1000)]
    assert max(factors) == 1.0
    assert factors[-1] < 1e-5
    assert factors[0] == pytest.approx(0.01)


def test_matches_torchs_cosine_after_the_warmup() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=80)
    for step in range(20, 100):
        assert lr_factor(step, 100, 0.2) == pytest.approx(reference.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        reference.step()


def test_only_weight_matrices_decay() -> None:
    model = tiny_dinov2()
    decaying = {name for name, parameter in model.named_parameters() if decays(parameter)}
    # The mask token is stored as a matrix of one row; it takes no part in classification.
    assert {name for name in decaying if not name.endswith(("weight", "mask_token"))} == set()
    assert not any("norm" in name for name in decaying)
    assert "dinov2.embeddings.patch_embeddings.projection.weight" in decaying


def test_every_parameter_is_in_one_group_with_its_rate_and_decay() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    settings = TrainSettings(lr=1e-4, head_lr=1e-3, weight_decay=0.1)
    optimizer = adamw(dict(model.named_parameters()), settings, head=["1.weight", "1.bias"])
    found = {id(p): (g["peak_lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    expected = [(1e-4, 0.1), (1e-4, 0.0), (1e-3, 0.1), (1e-3, 0.0)]
    assert [found[id(parameter)] for parameter in model.parameters()] == expected
    assert set_lr(optimizer, 0.5) == pytest.approx(5e-4)
