"""A model is rebuilt from JSON data, in its pruned shape, and takes its tensors."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from pah_opt.errors import ArtifactError, MissingBackendError, UnsupportedModelError
from pah_opt.models.conversion import convert_attention
from pah_opt.models.narrowing import keep_head_dims, keep_heads, keep_units
from pah_opt.models.surgery import remove_blocks
from pah_opt.testing import tiny_images, tiny_timm_vit, tiny_torchvision_vit, tiny_vit

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Case


def through_json(case: Case) -> nn.Module:
    structure = json.loads(json.dumps(case.adapter.structure(case.model)))
    rebuilt = case.adapter.rebuild(structure)
    assert case.adapter.disagreements(rebuilt) == []
    rebuilt.load_state_dict(case.model.state_dict())
    return rebuilt.eval()


def test_an_unchanged_model_is_rebuilt_without_any_shapes(any_case: Case) -> None:
    assert any_case.adapter.structure(any_case.model)["shapes"] == {}
    assert torch.equal(any_case.logits(through_json(any_case)), any_case.logits())


def test_an_unevenly_pruned_model_is_rebuilt_with_the_same_logits(any_case: Case) -> None:
    model, (first, second, _) = any_case.model, any_case.layout.blocks
    keep_heads(model, first.attention, [0, 1, 3])
    keep_head_dims(model, second.attention, [range(6)] * 4, [range(7)] * 4)
    keep_units(model, second.mlp, range(20))
    remove_blocks(model, any_case.layout.blocks_path, [2])
    any_case.adapter.sync(model)
    assert torch.equal(any_case.logits(through_json(any_case)), any_case.logits())


def test_fused_and_separate_attentions_are_rebuilt_as_such(any_case: Case) -> None:
    for block, fused in zip(any_case.layout.blocks, (True, False, True), strict=True):
        convert_attention(any_case.model, block.attention, fused=fused)
    any_case.adapter.sync(any_case.model)
    rebuilt = through_json(any_case)
    assert [b.attention.fused for b in any_case.adapter.layout(rebuilt).blocks] == [True, False, True]
    assert torch.equal(any_case.logits(rebuilt), any_case.logits())


def test_rebuilding_on_the_meta_device_makes_no_values_and_assigning_gives_them(any_case: Case) -> None:
    with torch.device("meta"):
        rebuilt = any_case.adapter.rebuild(any_case.adapter.structure(any_case.model))
    assert {p.device.type for p in rebuilt.parameters()} == {"meta"}
    rebuilt.load_state_dict(any_case.model.state_dict(), assign=True)
    assert torch.equal(any_case.logits(rebuilt.eval()), any_case.logits())


def test_types_of_parameters_are_rebuilt(any_case: Case) -> None:
    model = any_case.model.to(torch.bfloat16)
    for path in any_case.layout.classifiers:
        model.get_submodule(path).float()
    rebuilt = any_case.adapter.rebuild(any_case.adapter.structure(model))
    assert {n: p.dtype for n, p in rebuilt.named_parameters()} == {n: p.dtype for n, p in model.named_parameters()}


def test_a_changed_input_size_is_rebuilt(any_case: Case) -> None:
    any_case.adapter.resize(any_case.model, 16, 16)
    rebuilt = through_json(any_case)
    assert any_case.adapter.layout(rebuilt).image_size == (16, 16)
    assert torch.equal(any_case.logits(rebuilt, image=16), any_case.logits(image=16))


def test_embedding_width_is_rebuilt_even_where_heads_do_not_divide_it(make_case: Callable[..., Case]) -> None:
    for model in (tiny_vit(hidden=24, heads=4, head_dim=8), tiny_timm_vit(), tiny_torchvision_vit()):
        found = make_case(model)
        keep_heads(found.model, found.layout.blocks[0].attention, [0, 1, 2])
        keep_heads(found.model, found.layout.blocks[1].attention, [0, 1, 2])
        found.adapter.sync(found.model)
        assert torch.equal(found.logits(through_json(found)), found.logits())


def test_biases_that_were_added_or_dropped_are_rebuilt(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_timm_vit(proj_bias=False))
    found.model.blocks[0].mlp.fc2.bias = nn.Parameter(torch.ones(32))
    found.model.blocks[1].attn.qkv.bias = None
    rebuilt = through_json(found)
    assert torch.equal(found.logits(rebuilt), found.logits())
    assert rebuilt.blocks[1].attn.qkv.bias is None


def test_uniform_pruning_is_loaded_by_plain_transformers(make_case: Callable[..., Case], tmp_path: object) -> None:
    from transformers import ViTForImageClassification

    from pah_opt.models.quiet import quiet_transformers

    found = make_case(tiny_vit())
    for block in found.layout.blocks:
        keep_heads(found.model, block.attention, [1, 2, 3])
        keep_units(found.model, block.mlp, range(24))
    found.adapter.sync(found.model)
    for block in found.layout.blocks:
        keep_head_dims(found.model, block.attention, [range(2, 8)] * 3, [range(6)] * 3)
    found.adapter.sync(found.model)
    with quiet_transformers():
        found.model.save_pretrained(tmp_path)
        again, report = ViTForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    torch.testing.assert_close(again.eval()(tiny_images()).logits, found.logits())
    assert (again.config.num_attention_heads, again.config.head_dim, again.config.intermediate_size) == (3, 6, 24)


def test_a_model_whose_attributes_are_false_is_not_described(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    found.model.config.hidden_size = 5
    with pytest.raises(UnsupportedModelError, match=r"call sync\(\) first: config.hidden_size is 5"):
        found.adapter.structure(found.model)


def test_timm_variants_that_no_argument_describes_are_refused_by_name(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_timm_vit())
    found.model.blocks[0].mlp.act = nn.SiLU()
    with pytest.raises(UnsupportedModelError, match="act is a SiLU; saving timm models is supported with GELU only"):
        found.adapter.structure(found.model)


def test_blocks_are_reshaped_from_their_description(any_case: Case) -> None:
    narrowed = copy.deepcopy(any_case)
    keep_heads(narrowed.model, narrowed.layout.blocks[0].attention, [0, 1])
    keep_head_dims(narrowed.model, narrowed.layout.blocks[1].attention, [range(6)] * 4, [range(3)] * 4)
    keep_units(narrowed.model, narrowed.layout.blocks[2].mlp, range(20))
    narrowed.adapter.sync(narrowed.model)
    any_case.adapter.reshape(any_case.model, narrowed.adapter.structure(narrowed.model)["blocks"])
    any_case.model.load_state_dict(narrowed.model.state_dict())
    assert torch.equal(any_case.logits(), narrowed.logits())


def test_modules_that_a_strategy_puts_in_later_are_left_to_it(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    found.model.vit.layers[0].mlp.smoothing = nn.Linear(4, 4)
    rebuilt = found.adapter.rebuild(found.adapter.structure(found.model))
    assert not hasattr(rebuilt.vit.layers[0].mlp, "smoothing")


def test_a_class_of_the_callers_own_cannot_be_rebuilt_and_says_so(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    found.model.__class__ = type("MyViT", (type(found.model),), {"__module__": "mine"})
    with pytest.raises(
        UnsupportedModelError, match=r"mine.MyViT cannot be described .* only classes of transformers.models"
    ):
        found.adapter.structure(found.model)


@pytest.mark.parametrize(
    ("name", "error"),
    [("os:system", "allowed are classes of transformers.models"), ("transformers.models_evil:X", "allowed are classes"),
     ("transformers.models.vit.modeling_vit:logger", "no model class"),
     ("transformers.models.vit.modeling_vit:NoSuchModel", "no model class")],
)  # fmt: skip
def test_a_structure_can_name_nothing_but_model_classes_of_its_family(
    name: str, error: str, make_case: Callable[..., Case]
) -> None:
    found = make_case(tiny_vit())
    structure = {**found.adapter.structure(found.model), "class": name}
    with pytest.raises(ArtifactError, match=error):
        found.adapter.rebuild(structure)


def test_a_structure_whose_library_is_missing_names_it(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    structure = {**found.adapter.structure(found.model), "class": "transformers.models.no_such_family:Model"}
    with pytest.raises(MissingBackendError, match="pip install transformers"):
        found.adapter.rebuild(structure)


def test_a_structure_of_another_format_or_number_of_blocks_is_refused(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    structure = found.adapter.structure(found.model)
    with pytest.raises(ArtifactError, match="has format 99, this version reads 1"):
        found.adapter.rebuild({**structure, "format": 99})
    shorter = copy.deepcopy(structure)
    shorter["blocks"].pop()
    with pytest.raises(ArtifactError, match="describes 1 blocks, its arguments give 2"):
        found.adapter.rebuild(shorter)
    damaged = {**structure, "types": {"usual": "float99", "others": {}}}
    with pytest.raises(ArtifactError, match="'float99' is no type of torch"):
        found.adapter.rebuild(damaged)
