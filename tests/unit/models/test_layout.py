"""Layouts say where everything is, in every family."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from pah_opt.errors import UnsupportedModelError
from pah_opt.models import find_adapter, select_linears
from pah_opt.models.adapters.reading import part
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.models.surgery import replace_module
from pah_opt.testing import TINY_MODELS, tiny_deit, tiny_dinov2, tiny_timm_vit, tiny_torchvision_vit, tiny_vit
from pah_opt.testing.timm_vit import Block

if TYPE_CHECKING:
    from conftest import Case

NAMES = {"hf-deit-distilled": "hf-deit", "hf-dinov2-swiglu": "hf-dinov2", "hf-dinov2-registers": "hf-dinov2"}


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_each_family_is_recognised_by_exactly_one_adapter(name: str) -> None:
    model = TINY_MODELS[name]()
    assert [a.name for a in pah_opt_model_adapters() if a.matches(model)] == [NAMES.get(name, name)]


def test_layout_states_what_the_model_was_made_with(any_case: Case) -> None:
    layout = any_case.layout
    assert len(layout.blocks) == 3
    assert (layout.hidden_size, layout.num_classes, layout.in_channels) == (32, 10, 3)
    assert (layout.image_size, layout.patch_size) == ((32, 32), (8, 8))
    for block in layout.blocks:
        assert (block.attention.num_heads, block.attention.head_dim, block.attention.value_dim) == (4, 8, 8)
        assert block.mlp.width in (48, 64)


def test_every_path_of_a_layout_is_a_module_that_runs(any_case: Case) -> None:
    layout, ran = any_case.layout, set()
    paths = {
        layout.patch_embedding, layout.final_norm, *layout.classifiers, *layout.attention_projections,
        *layout.mlp_layers, *(p for b in layout.blocks for p in (b.path, b.attention.path, *b.norms)),
    }  # fmt: skip
    for path in paths:
        any_case.model.get_submodule(path).register_forward_hook(lambda *_, path=path: ran.add(path))
    any_case.logits()
    assert ran == paths


def test_projections_and_mlps_are_linear_layers_of_the_stated_widths(any_case: Case) -> None:
    layout = any_case.layout
    for path in (*layout.attention_projections, *layout.mlp_layers, *layout.classifiers):
        assert type(any_case.model.get_submodule(path)) is nn.Linear
    for block in layout.blocks:
        assert any_case.model.get_submodule(block.mlp.fc1).out_features == block.mlp.width
        assert any_case.model.get_submodule(block.mlp.fc2).in_features == block.mlp.width


def test_layout_is_the_same_on_the_meta_device(any_case: Case) -> None:
    assert any_case.adapter.layout(copy.deepcopy(any_case.model).to("meta")) == any_case.layout


def test_distilled_deit_has_two_classifiers_and_two_prefix_tokens() -> None:
    model = tiny_deit(distilled=True)
    layout = find_adapter(model, pah_opt_model_adapters()).layout(model)
    assert layout.classifiers == ("cls_classifier", "distillation_classifier")
    assert layout.prefix_tokens == 2


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        (tiny_vit(), 1), (tiny_deit(), 2), (tiny_dinov2(registers=2), 3), (tiny_timm_vit(reg_tokens=3), 4),
        (tiny_timm_vit(reg_tokens=3, no_embed_class=True), 4),
        (tiny_timm_vit(class_token=False, global_pool="avg"), 0), (tiny_torchvision_vit(), 1),
    ],
)  # fmt: skip
def test_prefix_tokens_are_those_before_the_patches(model: nn.Module, tokens: int) -> None:
    layout = find_adapter(model, pah_opt_model_adapters()).layout(model)
    seen: list[int] = []
    first = model.get_submodule(layout.blocks[0].norms[0])
    first.register_forward_hook(lambda _module, args, _out: seen.append(args[0].shape[1]))
    model(torch.zeros(1, 3, 32, 32))
    assert layout.prefix_tokens == tokens
    assert seen == [tokens + 16]


def test_swiglu_layers_are_named_gate_up_and_down() -> None:
    model = tiny_dinov2(swiglu=True)
    mlp = find_adapter(model, pah_opt_model_adapters()).layout(model).blocks[0].mlp
    assert [p.rpartition(".")[2] for p in (mlp.gate or "", mlp.fc1, mlp.fc2)] == ["gate_proj", "up_proj", "down_proj"]
    assert mlp.width == 48


def test_dinov2_classifier_takes_class_token_and_mean_patch() -> None:
    model = tiny_dinov2()
    layout = find_adapter(model, pah_opt_model_adapters()).layout(model)
    assert model.get_submodule(layout.classifiers[0]).in_features == 2 * layout.hidden_size


def test_bare_backbone_has_no_classifier_and_no_classes() -> None:
    model = tiny_vit().vit
    layout = find_adapter(model, pah_opt_model_adapters()).layout(model)
    assert (layout.classifiers, layout.num_classes, layout.blocks_path) == ((), 0, "layers")


def test_images_that_are_not_square_are_read_from_what_the_model_states() -> None:
    model = tiny_vit(image=(16, 48))  # type: ignore[arg-type]
    assert find_adapter(model, pah_opt_model_adapters()).layout(model).image_size == (16, 48)


def test_unprepared_torchvision_attention_is_said_to_be_native_and_becomes_linear_layers_with_the_same_logits() -> None:
    model = tiny_torchvision_vit()
    adapter = find_adapter(model, pah_opt_model_adapters())
    before = model(torch.ones(1, 3, 32, 32))
    assert adapter.layout(model).blocks[0].attention.native
    assert adapter.disagreements(model) == []
    prepared = adapter.prepare(model)
    attention = adapter.layout(prepared).blocks[0].attention
    assert not attention.native
    assert len({attention.query, attention.key, attention.value}) == 3
    assert len(select_linears(prepared, adapter.layout(prepared), skip=["classifier"])) == 2 * 6
    torch.testing.assert_close(prepared(torch.ones(1, 3, 32, 32)), before)


@pytest.mark.parametrize("change", ["bias_kv", "zero_attn", "sequence_first", "other_width"])
def test_multihead_attention_that_is_no_plain_self_attention_is_refused_by_path(change: str) -> None:
    options = {"bias_kv": {"add_bias_kv": True}, "zero_attn": {"add_zero_attn": True}, "other_width": {"kdim": 16}}
    model = tiny_torchvision_vit()
    block = model.encoder.layers.encoder_layer_1
    attention = nn.MultiheadAttention(32, 4, batch_first=change != "sequence_first", **options.get(change, {}))
    block.self_attention = attention
    with pytest.raises(UnsupportedModelError, match=r"encoder_layer_1.self_attention"):
        find_adapter(tiny_torchvision_vit(), pah_opt_model_adapters()).prepare(model)


def test_a_block_of_another_kind_is_refused_by_path_and_type() -> None:
    model = tiny_vit()
    model.vit.layers[1].mlp = nn.Identity()
    with pytest.raises(UnsupportedModelError, match=r"vit.layers.1 \(ViTLayer\) has no feed-forward network"):
        find_adapter(tiny_vit(), pah_opt_model_adapters()).layout(model)


def test_layers_that_no_longer_fit_each_other_are_refused_with_both_widths() -> None:
    adapter = find_adapter(tiny_vit(), pah_opt_model_adapters())
    model = tiny_vit()
    model.vit.layers[0].mlp.fc2 = nn.Linear(40, 32)
    with pytest.raises(UnsupportedModelError, match=r"vit.layers.0.mlp.fc1 makes 64 features and .*fc2 takes 40"):
        adapter.layout(model)
    model = tiny_vit()
    model.vit.layers[1].attention.o_proj = nn.Linear(16, 32)
    with pytest.raises(UnsupportedModelError, match=r"vit.layers.1.attention.o_proj takes 16 features"):
        adapter.layout(model)


def test_a_patch_projection_that_is_no_convolution_is_refused_by_path_and_type() -> None:
    model = tiny_torchvision_vit()
    adapter = find_adapter(model, pah_opt_model_adapters())
    model.conv_proj = nn.Sequential(nn.Conv2d(3, 32, 8, 8))
    with pytest.raises(UnsupportedModelError, match="conv_proj is a Sequential without a weight tensor"):
        adapter.layout(model)


def test_a_projection_that_is_no_linear_layer_is_refused_by_path_and_type() -> None:
    model = tiny_vit()
    adapter = find_adapter(model, pah_opt_model_adapters())
    model.vit.layers[0].mlp.fc1 = nn.Conv1d(32, 64, 1)
    with pytest.raises(UnsupportedModelError, match=r"vit.layers.0.mlp.fc1 is a Conv1d, not a linear layer"):
        adapter.layout(model)


def test_a_model_of_another_family_is_refused_with_the_parts_that_it_lacks() -> None:
    adapter = find_adapter(tiny_vit(), pah_opt_model_adapters())
    with pytest.raises(UnsupportedModelError, match=r"Linear does not have the parts of hf-vit \(layers, embeddings"):
        adapter.layout(nn.Linear(2, 2))
    assert "does not have the parts" in adapter.disagreements(nn.Linear(2, 2))[0]


def test_a_square_grid_is_read_from_the_position_embeddings_when_the_stated_size_is_stale() -> None:
    model = tiny_vit()
    model.vit.embeddings.position_embeddings = nn.Parameter(torch.zeros(1, 1 + 9, 32))
    adapter = find_adapter(model, pah_opt_model_adapters())
    assert adapter.layout(model).image_size == (24, 24)
    assert any("image_size is (32, 32), the tensors say (24, 24)" in text for text in adapter.disagreements(model))


def test_a_missing_part_is_named_with_what_is_there_instead() -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"no module 'vit.layers.7.mlp': vit.layers is a ModuleList without"
    ):
        part(tiny_vit(), "vit.layers.7.mlp")


def test_layout_of_a_model_with_four_bit_layers_has_the_widths_of_the_dense_one() -> None:
    bnb = pytest.importorskip("bitsandbytes")
    model = tiny_vit()
    adapter = find_adapter(model, pah_opt_model_adapters())
    dense = adapter.layout(model)
    for path in (dense.blocks[0].mlp.fc1, dense.blocks[0].attention.query):
        old = model.get_submodule(path)
        replace_module(model, path, bnb.nn.Linear4bit(old.in_features, old.out_features).to("cpu"))
    assert model.vit.layers[0].mlp.fc1.weight.shape != (64, 32)
    assert adapter.layout(model) == dense
    assert adapter.disagreements(model) == []
    assert adapter.structure(model)["shapes"] == {}


def test_timm_without_a_fixed_image_size_is_refused() -> None:
    model = tiny_timm_vit()
    adapter = find_adapter(model, pah_opt_model_adapters())
    model.patch_embed.img_size = None
    with pytest.raises(UnsupportedModelError, match=r"patch_embed.img_size is None"):
        adapter.layout(model)


def test_model_without_position_embeddings_is_refused() -> None:
    model = tiny_timm_vit()
    model.pos_embed = None
    with pytest.raises(UnsupportedModelError, match="pos_embed is NoneType; only learned absolute"):
        find_adapter(tiny_timm_vit(), pah_opt_model_adapters()).layout(model)


def test_position_embeddings_that_are_no_grid_are_refused_with_their_number() -> None:
    model = tiny_vit()
    model.vit.embeddings.position_embeddings = nn.Parameter(torch.zeros(1, 1 + 15, 32))
    with pytest.raises(UnsupportedModelError, match="15 patches, which is neither a square nor the 4x4"):
        find_adapter(tiny_vit(), pah_opt_model_adapters()).layout(model)


class ResPostBlock(nn.Module):
    """timm's block in which the norms come after the attention and the network; no subclass of Block there either."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        x = x + self.norm1(self.attn(x))
        return x + self.norm2(self.mlp(x))


class OwnBlock(Block):
    """A block that computes what it inherits."""


def test_timm_blocks_that_norm_afterwards_are_refused_by_path_and_class() -> None:
    model = tiny_timm_vit()
    adapter = find_adapter(model, pah_opt_model_adapters())
    model.blocks[1].__class__ = ResPostBlock
    with pytest.raises(UnsupportedModelError, match=r"blocks\.1 is a ResPostBlock; .* pre-norm Block"):
        adapter.layout(model)
    model.blocks[1].__class__ = OwnBlock
    assert len(adapter.layout(model).blocks) == len(model.blocks)


def test_timm_blocks_without_layer_scales_are_refused() -> None:
    model = tiny_timm_vit()
    del model.blocks[0].ls2
    with pytest.raises(UnsupportedModelError, match=r"blocks\.0 is a Block; .*ls2"):
        find_adapter(tiny_timm_vit(), pah_opt_model_adapters()).layout(model)


def test_one_block_at_two_positions_is_refused_with_both() -> None:
    model = tiny_vit()
    model.vit.layers[1] = model.vit.layers[0]
    with pytest.raises(UnsupportedModelError, match=r"vit\.layers\.0 and vit\.layers\.1 are one module.*deepcopy"):
        find_adapter(tiny_vit(), pah_opt_model_adapters()).layout(model)
