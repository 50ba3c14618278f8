from __future__ import annotations

import pytest
import torch
from torch import nn

from pah_opt.adapt.parameters import freeze, recomputed_blocks, unmatched_freezes, untrainable
from pah_opt.errors import UnsupportedModelError


def test_patterns_match_parameters_and_the_modules_that_hold_them(model: nn.Module) -> None:
    trained = freeze(model, ("vit.layers.0", "*.bias"))
    assert not any(name.startswith("vit.layers.0.") or name.endswith("bias") for name in trained)
    assert "vit.layers.1.mlp.fc1.weight" in trained
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == set(trained)


def test_module_pattern_does_not_match_a_longer_name(model: nn.Module) -> None:
    assert unmatched_freezes([name for name, _ in model.named_parameters()], ["vit.layer"]) == ["vit.layer"]


def test_pattern_that_matches_nothing_is_named(model: nn.Module) -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"freeze pattern 'encoder.\*' matches no parameter; .* such as 'vit"
    ):
        freeze(model, ("encoder.*",))


def test_parameters_frozen_by_the_caller_stay_frozen(model: nn.Module) -> None:
    model.get_submodule("vit").requires_grad_(False)
    assert set(freeze(model, ())) == {"classifier.weight", "classifier.bias"}


def test_nothing_to_train_is_refused(model: nn.Module) -> None:
    with pytest.raises(UnsupportedModelError, match=r"there is no parameter to train.*requires_grad_\(True\)"):
        freeze(model.requires_grad_(False), ())


def test_half_precision_is_refused_and_frozen_halves_are_not(model: nn.Module) -> None:
    halves = model.to(torch.bfloat16)
    assert "stored in half precision" in untrainable(halves, ())[0]
    halves.get_submodule("classifier").float()
    assert untrainable(halves, ("vit",)) == []


def test_all_problems_come_at_once(model: nn.Module) -> None:
    assert len(untrainable(model, ("*", "nothing", "nowhere"))) == 3


def test_recomputed_blocks_give_the_same_gradients_and_leave_no_trace(model: nn.Module) -> None:
    pixels = torch.randn(2, 3, 16, 16)
    model(pixels).logits.sum().backward()
    expected = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()
    with recomputed_blocks(model, ["vit.layers.0", "vit.layers.1"]):
        model(pixels).logits.sum().backward()
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name])
    assert "forward" not in vars(model.get_submodule("vit.layers.0"))
