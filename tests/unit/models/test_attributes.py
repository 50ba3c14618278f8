"""Attributes and configs say what the tensors are, and false ones are found."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from pah_opt.errors import UnsupportedModelError
from pah_opt.models.adapters.huggingface import UNEVEN
from pah_opt.models.narrowing import keep_head_dims, keep_heads, keep_units
from pah_opt.models.surgery import keep_columns, keep_rows, remove_blocks
from pah_opt.testing import (
    tiny_deit,
    tiny_dinov2,
    tiny_images,
    tiny_legacy_vit,
    tiny_timm_vit,
    tiny_torchvision_vit,
    tiny_vit,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Case

Make = "Callable[[nn.Module], Case]"


def test_a_fresh_model_is_true_and_syncing_changes_nothing(any_case: Case) -> None:
    before = copy.deepcopy(any_case.model)
    assert any_case.adapter.disagreements(any_case.model) == []
    any_case.adapter.sync(any_case.model)
    assert torch.equal(any_case.logits(), any_case.logits(before))
    if hasattr(before, "config"):
        assert before.config.to_dict() == any_case.model.config.to_dict()


def test_pruned_heads_update_num_attention_heads(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    for block in found.layout.blocks:
        keep_heads(found.model, block.attention, [0, 2])
    assert any(
        "config.num_attention_heads is 4, the tensors say 2" in text
        for text in found.adapter.disagreements(found.model)
    )
    found.adapter.sync(found.model)
    config = found.model.config
    assert (config.num_attention_heads, config.head_dim, config.hidden_size) == (2, 8, 32)
    assert found.model.vit.layers[1].attention.num_attention_heads == 2
    assert not hasattr(config, UNEVEN)


def test_pruned_head_dims_update_head_dim_and_scaling(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    for block in found.layout.blocks:
        keep_head_dims(found.model, block.attention, [range(4)] * 4, [range(4)] * 4)
    found.adapter.sync(found.model)
    attention = found.model.vit.layers[0].attention
    assert (attention.head_dim, attention.num_attention_heads) == (4, 4)
    assert attention.scaling == pytest.approx(4**-0.5)
    assert (found.model.config.head_dim, found.model.config.num_attention_heads) == (4, 4)


def test_head_dims_removed_behind_the_adapters_back_are_found(make_case: Callable[..., Case]) -> None:
    """Rows of half of each head leave a model that runs, with two heads of the wrong parts: nothing raises."""
    found = make_case(tiny_vit())
    attention, kept = found.layout.blocks[0].attention, [head * 8 + d for head in range(4) for d in range(4)]
    for path in (attention.query, attention.key, attention.value):
        keep_rows(found.model.get_submodule(path), kept)
    keep_columns(found.model.get_submodule(attention.output), kept)
    assert found.model(tiny_images()).logits.isfinite().all()
    assert any("vit.layers.0.attention.num_attention_heads is 4, the tensors say 2" in text
               for text in found.adapter.disagreements(found.model))  # fmt: skip


def test_rows_that_no_head_width_divides_are_found(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    keep_rows(found.model.get_submodule(found.layout.blocks[0].attention.query), range(30))
    assert "q_proj has 30 rows, which heads of head_dim 8 do not divide" in found.adapter.disagreements(found.model)[0]


FALSE_ATTRIBUTES = [
    ("vit.layers.0.attention", "num_attention_heads", 7), ("vit.layers.0.attention", "scaling", 1.0),
    ("vit.layers.1.mlp.fc1", "out_features", 5), ("vit.layers.1.mlp.fc2", "in_features", 5),
    ("vit.layers.1.layernorm_after", "normalized_shape", (5,)), ("vit.embeddings.patch_embeddings", "num_patches", 5),
    ("vit.embeddings.patch_embeddings.projection", "out_channels", 5), ("vit.embeddings", "image_size", (8, 8)),
    ("vit.embeddings.patch_embeddings", "num_channels", 5), ("", "num_labels", 5),
]  # fmt: skip


@pytest.mark.parametrize(("path", "attribute", "value"), FALSE_ATTRIBUTES)
def test_a_false_attribute_is_named_and_put_right(
    path: str, attribute: str, value: object, make_case: Callable[..., Case]
) -> None:
    found = make_case(tiny_vit())
    module = found.model.get_submodule(path)
    true = getattr(module, attribute)
    setattr(module, attribute, value)
    named = found.adapter.disagreements(found.model)
    assert any(text.startswith(f"{path}.{attribute} is {value!r}".lstrip(".")) for text in named)
    found.adapter.sync(found.model)
    assert getattr(module, attribute) == true
    assert found.adapter.disagreements(found.model) == []


@pytest.mark.parametrize("attribute", ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                                       "image_size", "patch_size", "num_channels", "num_labels"])  # fmt: skip
def test_a_false_config_is_named_and_put_right(attribute: str, make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    true = getattr(found.model.config, attribute)
    setattr(found.model.config, attribute, 5)
    assert any(text.startswith(f"config.{attribute} is 5") for text in found.adapter.disagreements(found.model))
    found.adapter.sync(found.model)
    assert getattr(found.model.config, attribute) == true


def test_a_scale_of_ones_own_is_folded_into_the_queries_so_that_logits_stay(make_case: Callable[..., Case]) -> None:
    model = tiny_vit()
    model.vit.layers[0].attention.scaling = 0.9
    before = model(tiny_images()).logits
    found = make_case(model)
    assert model.vit.layers[0].attention.scaling == pytest.approx(8**-0.5)
    torch.testing.assert_close(found.logits(), before)


def test_a_scale_is_folded_into_the_norm_of_the_queries_where_there_is_one(make_case: Callable[..., Case]) -> None:
    model = tiny_timm_vit(qk_norm=True)
    model.blocks[0].attn.fused_attn = False
    model.blocks[0].attn.scale = 0.9
    before = model(tiny_images())
    found = make_case(model)
    assert model.blocks[0].attn.scale == pytest.approx(8**-0.5)
    torch.testing.assert_close(found.logits(), before)


def test_a_scale_that_cannot_be_folded_is_refused(make_case: Callable[..., Case]) -> None:
    model = tiny_timm_vit(qk_norm=True)
    model.blocks[0].attn.q_norm = nn.LayerNorm(8, elementwise_affine=False)
    model.blocks[0].attn.scale = 0.9
    with pytest.raises(UnsupportedModelError, match=r"the scale of blocks.0.attn cannot be kept"):
        make_case(model)


def test_the_scaling_of_later_transformers_4_is_kept_true(make_case: Callable[..., Case]) -> None:
    model = tiny_legacy_vit()
    for block in model.vit.encoder.layer:
        block.attention.attention.scaling = 8**-0.5
    found = make_case(model)
    model.vit.encoder.layer[0].attention.attention.scaling = 0.9
    assert any("attention.attention.scaling is 0.9" in text for text in found.adapter.disagreements(model))


def test_a_new_classifier_of_the_callers_is_made_known_before_any_step(make_case: Callable[..., Case]) -> None:
    model = tiny_vit()
    model.classifier = nn.Linear(32, 3)
    found = make_case(model)
    assert (model.num_labels, model.config.num_labels, found.layout.num_classes) == (3, 3, 3)
    assert found.adapter.disagreements(model) == []


def test_removed_blocks_update_num_hidden_layers(any_case: Case) -> None:
    remove_blocks(any_case.model, any_case.layout.blocks_path, [1])
    any_case.adapter.sync(any_case.model)
    assert len(any_case.layout.blocks) == 2
    assert any_case.adapter.disagreements(any_case.model) == []
    assert any_case.logits().isfinite().all()
    if hasattr(any_case.model, "config"):
        assert any_case.model.config.num_hidden_layers == 2


def test_uneven_blocks_are_described_in_the_config_as_json_and_no_longer_when_even_again(
    make_case: Callable[..., Case],
) -> None:
    found = make_case(tiny_vit())
    first, second = found.layout.blocks
    keep_units(found.model, first.mlp, range(40))
    found.adapter.sync(found.model)
    described = json.loads(json.dumps(getattr(found.model.config, UNEVEN)))
    assert [block["mlp_width"] for block in described] == [40, 64]
    assert found.model.config.intermediate_size == 64
    keep_units(found.model, second.mlp, range(40))
    assert any(UNEVEN in text for text in found.adapter.disagreements(found.model))
    found.adapter.sync(found.model)
    assert not hasattr(found.model.config, UNEVEN)
    assert found.model.config.intermediate_size == 40


@pytest.mark.parametrize(
    ("swiglu", "width", "ratio"), [(False, 32, 1), (False, 48, None), (True, 24, 1), (True, 20, None)]
)
def test_dinov2_states_a_width_as_mlp_ratio_where_that_is_an_integer(
    swiglu: bool, width: int, ratio: int | None, make_case: Callable[..., Case]
) -> None:
    found = make_case(tiny_dinov2(swiglu=swiglu))
    for block in found.layout.blocks:
        keep_units(found.model, block.mlp, range(width))
    found.adapter.sync(found.model)
    assert found.model.config.mlp_ratio == (ratio or 2)
    assert hasattr(found.model.config, UNEVEN) == (ratio is None)
    assert found.adapter.disagreements(found.model) == []


def test_both_classifiers_of_a_distilled_deit_decide_num_labels(make_case: Callable[..., Case]) -> None:
    model = tiny_deit(distilled=True)
    model.cls_classifier, model.distillation_classifier = nn.Linear(32, 4), nn.Linear(32, 4)
    assert make_case(model).model.config.num_labels == 4


def test_timm_and_torchvision_attributes_follow_the_tensors(make_case: Callable[..., Case]) -> None:
    timm, torchvision = make_case(tiny_timm_vit()), make_case(tiny_torchvision_vit())
    for found in (timm, torchvision):
        for block in found.layout.blocks:
            keep_heads(found.model, block.attention, [0, 2])
            keep_units(found.model, block.mlp, range(24))
        found.adapter.sync(found.model)
    attention = timm.model.blocks[0].attn
    assert (attention.num_heads, attention.head_dim, attention.attn_dim) == (2, 8, 16)
    assert torchvision.model.mlp_dim == 24
    assert torchvision.model.encoder.layers.encoder_layer_0.num_heads == 2
