"""Stand-ins compute what the library they stand in for computes."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor, nn

from pah_opt.testing import tiny_images, tiny_legacy_vit, tiny_timm_vit, tiny_torchvision_vit, tiny_vit

BLOCK_NAMES = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "layernorm_before",
    "layernorm_after": "layernorm_after",
}


def reference(eps: float = 1e-12) -> tuple[nn.Module, dict[str, Tensor], Tensor]:
    model = tiny_vit(layer_norm_eps=eps)
    return model, model.state_dict(), model(tiny_images()).logits


def parts(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: state[f"{name}.{key}"] for key in ("weight", "bias")}


def joined(state: dict[str, Tensor], block: int) -> dict[str, Tensor]:
    prefix = f"vit.layers.{block}.attention"
    return {key: torch.cat([state[f"{prefix}.{p}_proj.{key}"] for p in "qkv"]) for key in ("weight", "bias")}


def test_legacy_stand_in_with_copied_weights_has_the_logits_of_transformers() -> None:
    _, state, wanted = reference()
    stand_in = tiny_legacy_vit()
    for index, block in enumerate(stand_in.vit.encoder.layer):
        for ours, theirs in BLOCK_NAMES.items():
            block.get_submodule(ours).load_state_dict(parts(state, f"vit.layers.{index}.{theirs}"))
    rest = {key: value for key, value in state.items() if ".layers." not in key}
    missing = stand_in.load_state_dict(rest, strict=False)
    assert not missing.unexpected_keys
    torch.testing.assert_close(stand_in(tiny_images()).logits, wanted)


def test_timm_stand_in_with_copied_weights_has_the_logits_of_transformers() -> None:
    _, state, wanted = reference(eps=1e-6)
    stand_in = tiny_timm_vit()
    copied = {
        "cls_token": state["vit.embeddings.cls_token"],
        "pos_embed": state["vit.embeddings.position_embeddings"],
        **{f"patch_embed.proj.{k}": v for k, v in parts(state, "vit.embeddings.patch_embeddings.projection").items()},
        **{f"norm.{k}": v for k, v in parts(state, "vit.layernorm").items()},
        **{f"head.{k}": v for k, v in parts(state, "classifier").items()},
    }
    names = {"attn.proj": "attention.o_proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
             "norm1": "layernorm_before", "norm2": "layernorm_after"}  # fmt: skip
    for index in range(2):
        copied |= {f"blocks.{index}.attn.qkv.{k}": v for k, v in joined(state, index).items()}
        for ours, theirs in names.items():
            found = parts(state, f"vit.layers.{index}.{theirs}")
            copied |= {f"blocks.{index}.{ours}.{k}": v for k, v in found.items()}
    stand_in.load_state_dict(copied)
    torch.testing.assert_close(stand_in(tiny_images()), wanted)


def test_torchvision_stand_in_with_copied_weights_has_the_logits_of_transformers() -> None:
    _, state, wanted = reference(eps=1e-6)
    stand_in = tiny_torchvision_vit()
    copied = {
        "class_token": state["vit.embeddings.cls_token"],
        "encoder.pos_embedding": state["vit.embeddings.position_embeddings"],
        **{f"conv_proj.{k}": v for k, v in parts(state, "vit.embeddings.patch_embeddings.projection").items()},
        **{f"encoder.ln.{k}": v for k, v in parts(state, "vit.layernorm").items()},
        **{f"heads.head.{k}": v for k, v in parts(state, "classifier").items()},
    }
    names = {"self_attention.out_proj": "attention.o_proj", "mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2",
             "ln_1": "layernorm_before", "ln_2": "layernorm_after"}  # fmt: skip
    for index in range(2):
        prefix = f"encoder.layers.encoder_layer_{index}"
        copied |= {f"{prefix}.self_attention.in_proj_{k}": v for k, v in joined(state, index).items()}
        for ours, theirs in names.items():
            copied |= {f"{prefix}.{ours}.{k}": v for k, v in parts(state, f"vit.layers.{index}.{theirs}").items()}
    stand_in.load_state_dict(copied)
    torch.testing.assert_close(stand_in(tiny_images()), wanted)


def real(module: str) -> type[nn.Module]:
    try:
        return importlib.import_module(module).VisionTransformer  # type: ignore[no-any-return]
    except ImportError as error:
        pytest.skip(f"{module.partition('.')[0]} cannot be imported here: {error}")


@pytest.mark.parametrize(
    "options",
    [{}, {"qk_norm": True}, {"reg_tokens": 2}, {"reg_tokens": 2, "no_embed_class": True}, {"init_values": 0.1},
     {"global_pool": "avg"}, {"global_pool": "avg", "class_token": False}, {"qkv_bias": False}, {"proj_bias": False},
     {"pre_norm": True}, {"fc_norm": True}],
)  # fmt: skip
def test_timm_stand_in_has_the_tensors_and_logits_of_timm(options: dict[str, object]) -> None:
    kind = real("timm.models.vision_transformer")
    model = kind(
        img_size=32, patch_size=8, num_classes=10, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2.0, **options
    )
    stand_in = tiny_timm_vit(**options)
    assert list(stand_in.state_dict()) == list(model.state_dict())
    stand_in.load_state_dict(model.state_dict())
    torch.testing.assert_close(stand_in(tiny_images()), model.eval()(tiny_images()))


def test_torchvision_stand_in_has_the_tensors_and_logits_of_torchvision() -> None:
    kind = real("torchvision.models.vision_transformer")
    model = kind(image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10)
    stand_in = tiny_torchvision_vit()
    assert list(stand_in.state_dict()) == list(model.state_dict())
    stand_in.load_state_dict(model.state_dict())
    torch.testing.assert_close(stand_in(tiny_images()), model.eval()(tiny_images()))
