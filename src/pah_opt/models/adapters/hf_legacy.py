"""Hugging Face ViT and DeiT in the module layout of transformers 4, which pickled models and remote code still have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.models.adapters.facts import Fact
from pah_opt.models.adapters.hf_vit import encoder_names
from pah_opt.models.adapters.huggingface import HuggingFaceAdapter
from pah_opt.models.adapters.names import AttentionNames, MlpNames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from pah_opt.layout import Block

LEGACY_ATTENTION = AttentionNames(
    "attention.attention", "attention.attention.query", "attention.attention.key", "attention.attention.value",
    "attention.output.dense", head_dim="attention_head_size", joined="all_head_size", scale=None,
)  # fmt: skip
LEGACY_MLP = MlpNames("", "intermediate.dense", "output.dense")


class HuggingFaceLegacyViT(HuggingFaceAdapter):
    """``vit.encoder.layer[i].attention.attention.query`` and so on.

    Later releases of transformers 4 state the scale of the scores as ``scaling``, earlier ones take it from
    ``attention_head_size``; both are served.
    """

    name = "hf-vit-legacy"
    homes = ("transformers.models", "pah_opt.testing.legacy")
    names = encoder_names(
        ("vit", "deit", ""),
        blocks="encoder.layer",
        native=LEGACY_ATTENTION,
        mlps=(LEGACY_MLP,),
        classifiers=("classifier", "cls_classifier", "distillation_classifier"),
    )

    def _attention_facts(self, model: nn.Module, block: Block) -> Iterator[Fact]:
        yield from super()._attention_facts(model, block)
        module = model.get_submodule(block.attention.path)
        if hasattr(module, "scaling") and hasattr(module, "attention_head_size"):
            yield Fact(module, block.attention.path, "scaling", block.attention.head_dim**-0.5)
