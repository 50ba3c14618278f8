"""Narrower attention and MLPs give the logits of the same model with those parts zeroed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from pah_opt.errors import UnsupportedModelError
from pah_opt.models.narrowing import keep_head_dims, keep_heads, keep_units
from pah_opt.testing import tiny_images, tiny_timm_vit, tiny_vit

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Case
    from pah_opt.layout import Attention


@torch.no_grad()
def zero_columns(layer: nn.Linear, columns: list[int]) -> None:
    layer.weight[:, columns] = 0


@torch.no_grad()
def zero_rows(layer: nn.Linear, rows: list[int]) -> None:
    layer.weight[rows] = 0
    layer.bias[rows] = 0


def query_rows(model: nn.Module, attention: Attention, head: int, dims: list[int]) -> None:
    """Zero dimensions of one head's queries."""
    zero_rows(model.get_submodule(attention.query), [head * attention.head_dim + d for d in dims])  # type: ignore[arg-type]


def same(case: Case, narrowed: nn.Module, zeroed: nn.Module) -> None:
    case.adapter.sync(narrowed)
    assert case.adapter.disagreements(narrowed) == []
    torch.testing.assert_close(case.logits(narrowed), case.logits(zeroed), rtol=1e-5, atol=1e-6)


def test_removed_mlp_units_give_the_logits_of_zeroed_ones(any_case: Case) -> None:
    zeroed, narrowed = copy.deepcopy(any_case.model), copy.deepcopy(any_case.model)
    for block in any_case.layout.blocks:
        dropped = [1, 5, block.mlp.width - 1]
        zero_columns(zeroed.get_submodule(block.mlp.fc2), dropped)
        keep_units(narrowed, block.mlp, [unit for unit in range(block.mlp.width) if unit not in dropped])
    same(any_case, narrowed, zeroed)
    assert {block.mlp.width for block in any_case.adapter.layout(narrowed).blocks} == {
        any_case.layout.blocks[0].mlp.width - 3
    }


def test_removed_heads_give_the_logits_of_zeroed_ones(any_case: Case) -> None:
    zeroed, narrowed = copy.deepcopy(any_case.model), copy.deepcopy(any_case.model)
    for block in any_case.layout.blocks:
        zero_columns(zeroed.get_submodule(block.attention.output), list(range(8, 16)))
        keep_heads(narrowed, block.attention, [0, 2, 3])
    same(any_case, narrowed, zeroed)
    attention = any_case.adapter.layout(narrowed).blocks[0].attention
    assert (attention.num_heads, attention.head_dim) == (3, 8)


def test_removed_head_dims_give_the_logits_of_zeroed_ones_at_the_original_scale(any_case: Case) -> None:
    zeroed, narrowed = copy.deepcopy(any_case.model), copy.deepcopy(any_case.model)
    for block in any_case.layout.blocks:
        attention = block.attention
        for head in range(4):
            query_rows(zeroed, attention, head, [head, 7])
            zero_columns(zeroed.get_submodule(attention.output), [head * 8 + 6, head * 8 + 7])
        query = [[d for d in range(8) if d not in (head, 7)] for head in range(4)]
        keep_head_dims(narrowed, attention, query, [list(range(6))] * 4)
    same(any_case, narrowed, zeroed)
    attention = any_case.adapter.layout(narrowed).blocks[0].attention
    assert (attention.num_heads, attention.head_dim, attention.value_dim) == (4, 6, 6)


def test_value_dims_can_be_removed_apart_from_query_dims(any_case: Case) -> None:
    zeroed, narrowed = copy.deepcopy(any_case.model), copy.deepcopy(any_case.model)
    block = any_case.layout.blocks[1]
    for head in range(4):
        zero_columns(zeroed.get_submodule(block.attention.output), [head * 8 + d for d in range(3, 8)])
    keep_head_dims(narrowed, block.attention, [range(8)] * 4, [range(3)] * 4)
    same(any_case, narrowed, zeroed)
    attention = any_case.adapter.layout(narrowed).blocks[1].attention
    assert (attention.num_heads, attention.head_dim, attention.value_dim) == (4, 8, 3)


def test_blocks_may_be_narrowed_unevenly_and_twice(any_case: Case) -> None:
    zeroed, narrowed = copy.deepcopy(any_case.model), copy.deepcopy(any_case.model)
    first, second, _ = any_case.layout.blocks
    zero_columns(zeroed.get_submodule(first.attention.output), list(range(24)))
    zero_columns(zeroed.get_submodule(second.mlp.fc2), list(range(10)))
    keep_heads(narrowed, first.attention, [1, 3])
    any_case.adapter.sync(narrowed)
    keep_heads(narrowed, any_case.adapter.layout(narrowed).blocks[0].attention, [1])
    keep_units(narrowed, second.mlp, range(10, second.mlp.width))
    same(any_case, narrowed, zeroed)
    blocks = any_case.adapter.layout(narrowed).blocks
    assert [block.attention.num_heads for block in blocks] == [1, 4, 4]
    assert blocks[1].mlp.width == second.mlp.width - 10


def test_narrowing_works_without_values(any_case: Case) -> None:
    model = copy.deepcopy(any_case.model).to("meta")
    block = any_case.layout.blocks[0]
    keep_heads(model, block.attention, [0, 1, 2])
    keep_units(model, block.mlp, range(16))
    keep_head_dims(model, any_case.layout.blocks[1].attention, [range(4)] * 4, [range(2)] * 4)
    any_case.adapter.sync(model)
    assert any_case.adapter.disagreements(model) == []


def test_removing_every_head_is_refused(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    with pytest.raises(UnsupportedModelError, match=r"vit.layers.0.attention must keep at least one of its 4 heads"):
        keep_heads(found.model, found.layout.blocks[0].attention, [])


def test_layers_that_are_not_plain_are_refused_by_path_and_type(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    mlp = found.layout.blocks[0].mlp
    found.model.vit.layers[0].mlp.fc1 = nn.Bilinear(2, 2, 2)
    with pytest.raises(UnsupportedModelError, match=r"vit.layers.0.mlp.fc1 is a Bilinear; only nn.Linear"):
        keep_units(found.model, mlp, [0])


@pytest.mark.parametrize("dims", [[range(8)] * 3, [range(8), range(7), range(8), range(8)], [range(0)] * 4])
def test_heads_of_different_or_no_width_are_refused(dims: list[range], make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    with pytest.raises(UnsupportedModelError, match="must all keep the same number of dimensions, at least one"):
        keep_head_dims(found.model, found.layout.blocks[0].attention, dims, [range(8)] * 4)


def test_head_dims_under_a_norm_of_queries_are_refused_and_whole_heads_are_not(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_timm_vit(qk_norm=True))
    attention = found.layout.blocks[0].attention
    with pytest.raises(UnsupportedModelError, match=r"blocks.0.attn \(Attention\) also applies q_norm, k_norm"):
        keep_head_dims(found.model, attention, [range(4)] * 4, [range(4)] * 4)
    keep_heads(found.model, attention, [0, 1])
    found.adapter.sync(found.model)
    assert found.model(tiny_images()).isfinite().all()


def test_timm_keeps_its_logits_in_both_ways_of_computing_attention(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_timm_vit())
    keep_head_dims(found.model, found.layout.blocks[0].attention, [range(5)] * 4, [range(5)] * 4)
    found.adapter.sync(found.model)
    fused = found.model(tiny_images())
    for block in found.model.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(found.model(tiny_images()), fused)
