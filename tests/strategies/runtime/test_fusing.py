from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import pah_opt
from pah_opt.errors import RecipeError, UnsupportedModelError
from pah_opt.models import find_adapter, select_linears
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.strategies.runtime import agreement
from pah_opt.testing import TINY_MODELS, tiny_legacy_vit, tiny_timm_vit, tiny_vit

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from conftest import Apply

APART = [name for name in sorted(TINY_MODELS) if name != "timm-vit"]


def unfused_timm() -> nn.Module:
    model = tiny_timm_vit()
    for block in model.blocks:
        block.attn.fused_attn = False
    return model


WRITTEN_OUT = {
    "hf-vit": lambda: tiny_vit(attn_implementation="eager"),
    "hf-dinov2": lambda: TINY_MODELS["hf-dinov2"](attn_implementation="eager"),
    "hf-vit-legacy": tiny_legacy_vit,
    "timm-vit": unfused_timm,
}


@pytest.mark.parametrize("name", APART)
def test_query_key_and_value_become_one_product_with_the_same_logits(
    name: str,
    apply: Apply,
    reloaded: Callable[[Any], nn.Module],
    logits: Callable[..., Any],
    prepared: Callable[..., Any],
) -> None:
    artifact = apply(TINY_MODELS[name](), "fused-qkv")
    (step,) = artifact.steps
    assert step.achieved["fused_blocks"] == 2
    assert step.achieved["logits_change"] < 1e-5
    assert step.after["params"] == step.before["params"]
    assert step.after["macs"] == step.before["macs"]
    layout = find_adapter(artifact.model, pah_opt_model_adapters()).layout(artifact.model)
    assert all(block.attention.fused for block in layout.blocks)
    dense = prepared(TINY_MODELS[name]())
    torch.testing.assert_close(logits(artifact.model), logits(dense), rtol=1e-5, atol=1e-6)
    assert torch.equal(logits(reloaded(artifact)), logits(artifact.model))


@pytest.mark.parametrize("name", sorted(WRITTEN_OUT))
def test_attention_that_is_written_out_becomes_one_kernel_with_the_same_logits(
    name: str,
    apply: Apply,
    reloaded: Callable[[Any], nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    logits: Callable[..., Any],
) -> None:
    model = WRITTEN_OUT[name]()
    artifact = apply(model, "fused-attention")
    assert artifact.steps[0].achieved["fused_blocks"] == 2
    torch.testing.assert_close(logits(artifact.model), logits(model), rtol=1e-5, atol=1e-6)
    calls: list[int] = []
    real = torch.nn.functional.scaled_dot_product_attention
    for place in ("torch.nn.functional", "pah_opt.models.attention", "pah_opt.testing.timm_vit"):
        monkeypatch.setattr(f"{place}.scaled_dot_product_attention", lambda *a, **k: calls.append(1) or real(*a, **k))
    logits(model)
    assert not calls
    fused = logits(artifact.model)
    assert len(calls) == 2
    assert torch.equal(logits(reloaded(artifact)), fused)


@pytest.mark.parametrize("name", ["hf-vit", "timm-vit", "torchvision-vit"])
def test_attention_that_is_fused_already_is_refused(name: str, apply: Apply) -> None:
    with pytest.raises(RecipeError, match="every one is fused already; leave the step out"):
        apply(TINY_MODELS[name](), "fused-attention")


def test_a_model_with_one_product_already_is_refused(apply: Apply) -> None:
    with pytest.raises(RecipeError, match="one matrix product in every block already"):
        apply(tiny_timm_vit(), "fused-qkv")
    with pytest.raises(RecipeError, match="one matrix product in every block already"):
        apply(tiny_vit(), pah_opt.Step.of("fused-qkv"), pah_opt.Step.of("fused-qkv"))


def test_attention_with_norms_in_between_is_refused_by_path(apply: Apply) -> None:
    model = tiny_vit()
    model.vit.layers[1].attention.q_norm = torch.nn.LayerNorm(8)
    with pytest.raises(RecipeError, match=r"vit.layers.1.attention .* also applies q_norm"):
        apply(model, "fused-qkv")


def test_a_fused_model_can_still_be_pruned_quantized_and_cast(apply: Apply) -> None:
    for after in (
        pah_opt.Step.of("magnitude-pruning", sparsity=0.5),
        pah_opt.Step.of("torchao", scheme="int8-weight-only"),
        pah_opt.Step.of("cast"),
        pah_opt.Step.of("input-size", size=16),
    ):
        artifact = apply(tiny_vit(), pah_opt.Step.of("fused-qkv"), after)
        layout = find_adapter(artifact.model, pah_opt_model_adapters()).layout(artifact.model)
        assert list(select_linears(artifact.model, layout, include=["qkv"])) == [
            f"vit.layers.{block}.attention.qkv_proj" for block in range(2)
        ]


def test_narrowed_heads_stay_narrow_when_fused(apply: Apply) -> None:
    artifact = apply(
        tiny_vit(), pah_opt.Step.of("structured-pruning", heads=0.5, mlp=0.25), pah_opt.Step.of("fused-qkv")
    )
    layout = find_adapter(artifact.model, pah_opt_model_adapters()).layout(artifact.model)
    assert all(block.attention.num_heads < 4 for block in layout.blocks)


def test_a_change_of_the_logits_beyond_rounding_is_refused(apply: Apply, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(agreement.TOLERANCE, torch.float32, -1.0)
    with pytest.raises(UnsupportedModelError, match=r"fusing query, key and value changed the logits by .* at most -1"):
        apply(tiny_vit(), "fused-qkv")


def test_tolerance_follows_the_type_of_the_weights() -> None:
    assert agreement.tolerance_of(tiny_vit()) == 1e-3
    assert agreement.tolerance_of(tiny_vit().bfloat16()) == 1e-1
    assert agreement.tolerance_of(tiny_vit().half()) == 3e-2
    assert agreement.relative_change(torch.ones(1, 2), torch.tensor([[1.0, float("nan")]])) == float("inf")
    assert agreement.relative_change(torch.tensor([[2.0, -4.0]]), torch.tensor([[2.0, -3.0]])) == 0.25
