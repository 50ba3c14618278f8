from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from pah_opt.errors import UnsupportedModelError
from pah_opt.models.attention import SelfAttention
from pah_opt.models.conversion import convert_attention, holder_path
from pah_opt.testing import tiny_dinov2, tiny_timm_vit, tiny_torchvision_vit, tiny_vit

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Case


@pytest.mark.parametrize("fused", [True, False])
def test_converted_attention_keeps_the_logits_and_is_recognised(any_case: Case, fused: bool) -> None:
    before = any_case.logits()
    for block in any_case.layout.blocks:
        returned = convert_attention(any_case.model, block.attention, fused=fused)
        read = next(b.attention for b in any_case.layout.blocks if b.path == block.path)
        assert read == returned
    any_case.adapter.sync(any_case.model)
    assert any_case.adapter.disagreements(any_case.model) == []
    assert all(block.attention.fused == fused for block in any_case.layout.blocks)
    torch.testing.assert_close(any_case.logits(), before, rtol=1e-5, atol=1e-6)


def test_converting_back_and_forth_keeps_the_logits(any_case: Case) -> None:
    before = any_case.logits()
    attention = any_case.layout.blocks[0].attention
    for fused in (True, False, True, True):
        attention = convert_attention(any_case.model, attention, fused=fused)
    torch.testing.assert_close(any_case.logits(), before, rtol=1e-5, atol=1e-6)


def test_conversion_works_without_values(any_case: Case) -> None:
    model = copy.deepcopy(any_case.model).to("meta")
    for block in any_case.layout.blocks:
        convert_attention(model, block.attention, fused=True)
    assert any_case.adapter.layout(model).blocks[0].attention.fused


def test_holder_is_the_innermost_module_with_all_projections(make_case: Callable[..., Case]) -> None:
    assert holder_path(make_case(tiny_vit()).layout.blocks[0].attention) == "vit.layers.0.attention"
    assert holder_path(make_case(tiny_timm_vit()).layout.blocks[0].attention) == "blocks.0.attn"


def test_missing_biases_stay_missing(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_dinov2(qkv_bias=False))
    before = found.logits()
    convert_attention(found.model, found.layout.blocks[0].attention, fused=True)
    assert found.model.get_submodule(found.layout.blocks[0].attention.query).bias is None
    torch.testing.assert_close(found.logits(), before)


def test_attention_dropout_and_requires_grad_are_taken_over(make_case: Callable[..., Case]) -> None:
    model = tiny_torchvision_vit(attention_dropout=0.25)
    model.requires_grad_(requires_grad=False)
    found = make_case(model)
    own = model.encoder.layers.encoder_layer_0.self_attention
    assert own.attention_dropout == 0.25
    assert not any(parameter.requires_grad for parameter in own.parameters())
    own.train()
    inputs = torch.randn(1, 17, 32)
    assert not torch.equal(own(inputs)[0], own(inputs)[0])
    assert found.logits().isfinite().all()


def test_attention_with_norms_of_queries_is_refused_by_path(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_timm_vit(qk_norm=True))
    with pytest.raises(UnsupportedModelError, match=r"blocks.0.attn \(Attention\) also applies q_norm, k_norm"):
        convert_attention(found.model, found.layout.blocks[0].attention, fused=False)


def test_an_attention_that_states_no_dropout_has_none(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    del found.model.vit.layers[0].attention.attention_dropout
    convert_attention(found.model, found.layout.blocks[0].attention, fused=True)
    assert found.model.vit.layers[0].attention.attention_dropout == 0.0


def test_a_quantized_projection_is_refused_by_path_and_type(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    attention = found.layout.blocks[0].attention
    found.model.vit.layers[0].attention.k_proj = nn.Bilinear(32, 32, 32)
    with pytest.raises(
        UnsupportedModelError, match=r"attention.k_proj is a Bilinear; a plain floating-point nn.Linear"
    ):
        convert_attention(found.model, attention, fused=True)


def test_self_attention_is_scaled_dot_product_attention() -> None:
    attention = SelfAttention(12, 3, 4, 2, scaling=0.3, pair=False)
    tokens = torch.randn(2, 5, 12)
    query, key, value = (
        part(tokens).view(2, 5, 3, -1).transpose(1, 2)
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    weights = (query @ key.transpose(-2, -1) * 0.3).softmax(dim=-1)
    wanted = attention.o_proj((weights @ value).transpose(1, 2).reshape(2, 5, 6))
    torch.testing.assert_close(attention(tokens), wanted)


def test_self_attention_takes_masks_and_the_calls_of_every_family() -> None:
    attention = SelfAttention(8, 2, 4, 4, fused=True)
    tokens = torch.randn(1, 3, 8)
    mask = torch.tensor([[True, True, False]]).expand(3, 3)
    masked, nothing = attention(tokens, mask)
    assert nothing is None
    torch.testing.assert_close(attention(tokens, attn_mask=mask)[0], masked)
    torch.testing.assert_close(
        attention(query=tokens, key=tokens, value=tokens, need_weights=False)[0], attention(tokens)[0]
    )
    changed = tokens.clone()
    changed[:, 2] += 1
    torch.testing.assert_close(attention(changed, mask)[0][:, :2], masked[:, :2])
