from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim import optimizer as torch_optimizer

from pah_opt.errors import UnsupportedModelError
from pah_opt.models.zeros import ZeroKeeper, sparse_linears, zero_share, zeroed_linears


@pytest.fixture
def half_sparse() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))
    with torch.no_grad():
        model[0].weight[:, ::2] = 0
    return model


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 8)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adam])
def test_zeros_survive_training_and_the_rest_is_trained(half_sparse: nn.Sequential, kind: type) -> None:
    before = half_sparse[0].weight.detach().clone()
    with ZeroKeeper(half_sparse):
        train(half_sparse, kind(half_sparse.parameters(), lr=0.01))
    after = half_sparse[0].weight.detach()
    assert torch.equal(after == 0, before == 0)
    assert (after[before != 0] != before[before != 0]).all()


def test_without_the_keeper_zeros_are_lost(half_sparse: nn.Sequential) -> None:
    train(half_sparse, torch.optim.SGD(half_sparse.parameters(), lr=0.01))
    assert zero_share(half_sparse[0].weight) == 0.0


def test_nothing_stays_behind_even_after_an_error(half_sparse: nn.Sequential) -> None:
    hooks = dict(torch_optimizer._global_optimizer_post_hooks)
    names = [name for name, _ in half_sparse.named_buffers()]

    def fail() -> None:
        with ZeroKeeper(half_sparse):
            raise RuntimeError("training broke")

    with pytest.raises(RuntimeError, match="training broke"):
        fail()
    assert dict(torch_optimizer._global_optimizer_post_hooks) == hooks
    assert [name for name, _ in half_sparse.named_buffers()] == names
    train(half_sparse, torch.optim.SGD(half_sparse.parameters(), lr=0.01))
    assert zero_share(half_sparse[0].weight) == 0.0


def test_only_named_layers_are_kept(half_sparse: nn.Sequential) -> None:
    with torch.no_grad():
        half_sparse[2].weight[0] = 0
    with ZeroKeeper(half_sparse, ["2"]):
        train(half_sparse, torch.optim.SGD(half_sparse.parameters(), lr=0.01))
    assert zero_share(half_sparse[0].weight) == 0.0
    assert zero_share(half_sparse[2].weight) == 0.25


def test_a_layer_of_only_zeros_is_a_fresh_head_and_is_trained(half_sparse: nn.Sequential) -> None:
    nn.init.zeros_(half_sparse[2].weight)
    assert sparse_linears(half_sparse) == ["0"]
    assert zeroed_linears(half_sparse) == ["0"]


def test_inside_a_trained_module_a_layer_of_only_zeros_was_pruned() -> None:
    model = nn.ModuleDict({"block": nn.Sequential(nn.Linear(4, 4)), "head": nn.Linear(4, 2)})
    for layer in (model["block"][0], model["head"]):
        nn.init.zeros_(layer.weight)
    assert zeroed_linears(model, ["block"]) == ["block.0"]


def test_a_single_zero_is_kept_though_it_makes_no_layer_sparse(half_sparse: nn.Sequential) -> None:
    nn.init.normal_(half_sparse[0].weight)
    with torch.no_grad():
        half_sparse[0].weight[3, 5] = 0
    assert sparse_linears(half_sparse) == []
    with ZeroKeeper(half_sparse):
        train(half_sparse, torch.optim.SGD(half_sparse.parameters(), lr=0.01))
    assert half_sparse[0].weight[3, 5] == 0


def test_a_dense_model_registers_no_hook() -> None:
    hooks = len(torch_optimizer._global_optimizer_post_hooks)
    with ZeroKeeper(nn.Linear(8, 8)) as keeper:
        assert keeper.paths == ()
        assert len(torch_optimizer._global_optimizer_post_hooks) == hooks


def test_zeros_follow_a_weight_that_is_replaced(half_sparse: nn.Sequential) -> None:
    with ZeroKeeper(half_sparse) as keeper:
        half_sparse[0].weight = nn.Parameter(torch.ones_like(half_sparse[0].weight))
        keeper.restore()
    assert zero_share(half_sparse[0].weight) == 0.5


def test_other_models_are_left_alone(half_sparse: nn.Sequential) -> None:
    other = copy.deepcopy(half_sparse)
    with ZeroKeeper(half_sparse):
        train(other, torch.optim.SGD(other.parameters(), lr=0.01))
    assert zero_share(other[0].weight) == 0.0


def test_share_of_an_empty_tensor_is_zero() -> None:
    assert zero_share(torch.empty(0)) == 0.0


def test_a_path_without_a_weight_tensor_is_refused(half_sparse: nn.Sequential) -> None:
    half_sparse.add_module("3", nn.LayerNorm(4, elementwise_affine=False))
    with pytest.raises(UnsupportedModelError, match=r"3\.weight is a NoneType"), ZeroKeeper(half_sparse, ["3"]):
        pass
