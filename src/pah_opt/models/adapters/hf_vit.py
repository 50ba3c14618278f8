"""Hugging Face ViT (and ViT-MSN), in the module layout of transformers 5."""

from __future__ import annotations

from pah_opt.models.adapters.huggingface import HuggingFaceAdapter
from pah_opt.models.adapters.names import AttentionNames, FamilyNames, MlpNames

ATTENTION = AttentionNames("attention", "attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj")
"""Attention of transformers 5: four linear layers in one module; it splits heads by ``head_dim``."""
MLP = MlpNames("mlp", "mlp.fc1", "mlp.fc2")


def encoder_names(roots: tuple[str, ...], **changes: object) -> FamilyNames:
    """Return the names of a ViT-like encoder of transformers 5."""
    names = {
        "blocks": "layers", "native": ATTENTION, "attention_module": "attention", "mlps": (MLP,),
        "norms": ("layernorm_before", "layernorm_after"), "final_norms": ("layernorm",),
        "patch_embedding": "embeddings.patch_embeddings.projection", "positions": "embeddings.position_embeddings",
        "classifiers": ("classifier",),
    }  # fmt: skip
    return FamilyNames(roots, **{**names, **changes})  # type: ignore[arg-type]  # names of its fields


class HuggingFaceViT(HuggingFaceAdapter):
    """``ViTForImageClassification``, ``ViTMSNForImageClassification`` and the bare ``ViTModel``."""

    name = "hf-vit"
    names = encoder_names(("vit", ""), absent=("embeddings.distillation_token",))
