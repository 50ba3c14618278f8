from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pah_opt.adapt import TrainSettings
from pah_opt.adapt.job import Job
from pah_opt.adapt.schedule import adamw, decays, lr_factor, set_lr
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.testing.models import TINY_MODELS, tiny_dinov2


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
    settings = TrainSettings(lr=1e-4, weight_decay=0.1)
    optimizer = adamw(dict(model.named_parameters()), settings, {"1.weight": 1e-3, "1.bias": 1e-3})
    found = {id(p): (g["peak_lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    expected = [(1e-4, 0.1), (1e-4, 0.0), (1e-3, 0.1), (1e-3, 0.0)]
    assert [found[id(parameter)] for parameter in model.parameters()] == expected
    assert set_lr(optimizer, 0.5) == pytest.approx(5e-4)


def job(model: nn.Module, settings: TrainSettings) -> Job:
    adapter = find_adapter(model, default_registry().adapters)
    return Job(adapter.prepare(model), adapter, cast("Any", None), None, settings, 0)


@pytest.mark.parametrize("kind", list(TINY_MODELS))
def test_rates_fall_from_the_head_through_the_blocks_to_the_embeddings(kind: str) -> None:
    made = job(TINY_MODELS[kind](), TrainSettings(lr=1.0, layer_decay=0.5))
    layout, rates = made.adapter.layout(made.model), made.rates()
    assert set(rates) == {name for name, _ in made.model.named_parameters()}
    count = len(layout.blocks)
    for index, block in enumerate(layout.blocks):
        inside = {rates[name] for name in rates if name.startswith(f"{block.path}.")}
        assert inside == {0.5 ** (count - index)}
    assert rates[f"{layout.patch_embedding}.weight"] == 0.5 ** (count + 1)
    last = [layout.final_norm, *layout.classifiers]
    assert {rates[name] for name in rates if name.rpartition(".")[0] in last} == {1.0}
    others = [name for name in rates if not name.startswith(tuple(f"{block.path}." for block in layout.blocks))]
    tokens = [name for name in others if "token" in name or "pos" in name]
    assert tokens
    assert {rates[name] for name in tokens} == {0.5 ** (count + 1)}


def test_the_heads_own_rate_does_not_decay_and_nothing_is_named_without_need() -> None:
    settings = TrainSettings(lr=1e-4, head_lr=1e-2, layer_decay=0.5)
    rates = job(tiny_dinov2(), settings).rates()
    assert rates["classifier.weight"] == 1e-2
    assert rates["dinov2.layernorm.weight"] == 1e-4
    assert job(tiny_dinov2(), TrainSettings()).rates() == {}
    assert set(job(tiny_dinov2(), TrainSettings(head_lr=1e-2)).rates()) == {"classifier.weight", "classifier.bias"}
