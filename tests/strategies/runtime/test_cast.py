from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import pah_opt
from pah_opt.errors import IncompatibleStepsError, RecipeError, StepFailedError, UnsupportedModelError
from pah_opt.models import state_tags
from pah_opt.strategies.runtime.casting import CastingConv2d, cast_inputs_of
from pah_opt.testing import TINY_MODELS, tiny_images, tiny_vit

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from conftest import Apply


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_every_family_runs_in_half_precision_on_float32_images(
    name: str,
    dtype: str,
    apply: Apply,
    reloaded: Callable[[Any], nn.Module],
    logits: Callable[..., Any],
    prepared: Callable[..., Any],
) -> None:
    artifact = apply(TINY_MODELS[name](), "cast", dtype=dtype)
    (step,) = artifact.steps
    assert step.after["weights_bytes"] * 2 == step.before["weights_bytes"]
    assert set(step.after["linear_dtypes"]) == {dtype}
    assert f"dtype:{dtype}" in artifact.tags
    dense = logits(prepared(TINY_MODELS[name]()))
    assert (logits(artifact.model) - dense).abs().max() < 0.05 * dense.abs().max()
    assert torch.equal(logits(reloaded(artifact)), logits(artifact.model))


def test_pixels_in_half_precision_are_taken_too(apply: Apply) -> None:
    model = apply(TINY_MODELS["timm-vit"](), "cast").model
    assert torch.equal(model(tiny_images().bfloat16()), model(tiny_images()))


def test_norms_and_softmax_are_computed_in_float32_inside() -> None:
    """Large, close values: a norm computed in bfloat16 would round their differences away."""
    tokens = (torch.randn(4, 64, generator=torch.Generator().manual_seed(0)) + 256).bfloat16()
    norm = torch.nn.LayerNorm(64)
    wanted = norm(tokens.float())
    assert (norm.bfloat16()(tokens).float() - wanted).abs().max() < 0.02 * wanted.abs().max()
    scores = torch.randn(2, 1024, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert (scores.softmax(-1).float().sum(-1) - 1).abs().max() < 0.01


def test_fp16_refuses_weights_that_overflow_by_name(apply: Apply) -> None:
    model = tiny_vit()
    with torch.no_grad():
        model.classifier.weight[0, 0] = 1e5
    with pytest.raises(
        (StepFailedError, UnsupportedModelError), match=r"values of classifier.weight do not fit into float16.*bf16"
    ):
        apply(model, "cast", dtype="fp16")
    assert apply(model, "cast", dtype="bf16").model.classifier.weight.dtype == torch.bfloat16


def test_casting_to_the_type_a_model_has_is_refused(apply: Apply) -> None:
    with pytest.raises(RecipeError, match="every parameter is bf16 already"):
        apply(tiny_vit().bfloat16(), "cast")


def test_casting_from_one_half_type_to_the_other_changes_the_tag(apply: Apply) -> None:
    artifact = apply(tiny_vit().half(), "cast", dtype="bf16")
    assert "dtype:bf16" in artifact.tags
    assert "dtype:fp16" not in artifact.tags
    assert state_tags(artifact.model) == artifact.tags


def test_casting_after_quantizing_is_refused_with_the_order_that_works(apply: Apply) -> None:
    steps = (pah_opt.Step.of("torchao", scheme="int8-weight-only"), pah_opt.Step.of("cast"))
    with pytest.raises(IncompatibleStepsError, match="weights:float"):
        apply(tiny_vit(), *steps)
    apply(tiny_vit(), *reversed(steps))


def test_zeros_stay_zeros(apply: Apply) -> None:
    artifact = apply(tiny_vit(), pah_opt.Step.of("magnitude-pruning", sparsity=0.5), pah_opt.Step.of("cast"))
    assert artifact.steps[1].after["sparsity_pct"] == pytest.approx(artifact.steps[0].after["sparsity_pct"], abs=0.01)


def test_only_a_plain_convolution_can_be_made_to_cast() -> None:
    model = tiny_vit()
    with pytest.raises(
        UnsupportedModelError, match=r"classifier is a Linear; a model whose patch embedding is an nn.Conv2d"
    ):
        cast_inputs_of(model, "classifier")
    projection = "vit.embeddings.patch_embeddings.projection"
    cast_inputs_of(model, projection)
    cast_inputs_of(model, projection)
    assert isinstance(model.get_submodule(projection), CastingConv2d)


@pytest.mark.parametrize("dtype", ["fp8", "float32", 16])
def test_other_types_are_refused_with_what_is_allowed(dtype: Any, apply: Apply) -> None:
    with pytest.raises(RecipeError, match="bf16"):
        apply(tiny_vit(), "cast", dtype=dtype)
