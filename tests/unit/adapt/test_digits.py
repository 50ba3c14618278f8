from __future__ import annotations

import pytest
import torch

from pah_opt.adapt import TrainSettings, digits_vit, evaluate, train_digits_vit
from pah_opt.adapt.digits import SETTINGS
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry


def test_model_is_small_and_every_width_can_be_halved_and_aligned() -> None:
    model = digits_vit()
    layout = find_adapter(model, default_registry().adapters).layout(model)
    assert sum(parameter.numel() for parameter in model.parameters()) == 205_002
    assert layout.hidden_size % 16 == 0
    assert all(block.attention.num_heads % 2 == 0 and block.mlp.width % 32 == 0 for block in layout.blocks)
    assert layout.num_classes == 10


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.rand(3)
    one, same, other = (digits_vit(seed).classifier.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_training_is_deterministic() -> None:
    settings = SETTINGS.model_copy(update={"steps": 8})
    runs = [train_digits_vit(settings=settings) for _ in range(2)]
    first, again = runs
    assert first.result.losses == again.result.losses
    states = [run.model.state_dict() for run in runs]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
def test_full_training_recognises_96_percent_of_held_out_digits() -> None:
    trained = train_digits_vit()
    adapter = find_adapter(trained.model, default_registry().adapters)
    assert evaluate(trained.model, trained.data.test, adapter).accuracy >= 0.96
    assert isinstance(SETTINGS, TrainSettings)
    assert len(trained.result.history) == SETTINGS.epochs
