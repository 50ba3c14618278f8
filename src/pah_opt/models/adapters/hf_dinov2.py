"""Hugging Face DINOv2, with or without register tokens, with plain or SwiGLU feed-forward networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pah_opt.models.adapters.facts import Fact
from pah_opt.models.adapters.hf_vit import ATTENTION, MLP
from pah_opt.models.adapters.huggingface import HuggingFaceAdapter
from pah_opt.models.adapters.names import FamilyNames, MlpNames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from pah_opt.layout import Layout

SWIGLU = MlpNames("mlp", "mlp.up_proj", "mlp.down_proj", gate="mlp.gate_proj")


class HuggingFaceDINOv2(HuggingFaceAdapter):
    """``Dinov2ForImageClassification``, ``Dinov2WithRegistersForImageClassification`` and their bare backbones.

    The classifier takes the class token and the mean patch together, so it is twice as wide as the embedding.
    The config gives the feed-forward width as an integer ``mlp_ratio``; other widths are described per block.
    """

    name = "hf-dinov2"
    square = True  # it interpolates again in every forward pass unless height and width are equal
    names = FamilyNames(
        roots=("dinov2", "dinov2_with_registers", ""), blocks="encoder.layer", native=ATTENTION,
        attention_module="attention", mlps=(MLP, SWIGLU), norms=("norm1", "norm2"), final_norms=("layernorm",),
        patch_embedding="embeddings.patch_embeddings.projection", positions="embeddings.position_embeddings",
        classifiers=("classifier",),
    )  # fmt: skip

    def antialiases(self, model: nn.Module, root: str) -> bool:
        """Models with registers do, those without do not."""
        from pah_opt.models.adapters.reading import join

        return hasattr(model.get_submodule(join(root, "embeddings")), "register_tokens")

    def mlp_statement(self, config: Any, layout: Layout) -> tuple[str, Any]:
        """Return the smallest ratio that gives the width; DINOv2 states one."""
        widest = max(block.mlp.width for block in layout.blocks)
        gated = layout.blocks[0].mlp.gate is not None
        ratios = range(1, 2 + 3 * widest // (2 * layout.hidden_size) + 1)
        exact = [ratio for ratio in ratios if mlp_width(layout.hidden_size, ratio, gated=gated) == widest]
        return "mlp_ratio", exact[0] if exact else config.mlp_ratio

    def stated_mlp_width(self, config: Any, layout: Layout, value: Any) -> int:
        """Return the width that DINOv2 makes of a ratio."""
        return mlp_width(layout.hidden_size, value, gated=layout.blocks[0].mlp.gate is not None)

    def config_facts(self, model: nn.Module, layout: Layout) -> Iterator[Fact]:
        """Yield the names of the stages too."""
        yield from super().config_facts(model, layout)
        config: Any = model.config
        stages = ["stem", *(f"stage{index + 1}" for index in range(len(layout.blocks)))]
        yield Fact(config, "config", "stage_names", stages)
        # Stages that a backbone gives out; a config that names one which is gone cannot be loaded.
        kept = [stage for stage in config.out_features if stage in stages] or stages[-1:]
        yield Fact(config, "config", "_out_features", kept)
        yield Fact(config, "config", "_out_indices", [stages.index(stage) for stage in kept])


def mlp_width(hidden_size: int, ratio: float, *, gated: bool) -> int:
    """Return the feed-forward width that transformers makes of an ``mlp_ratio``.

    >>> mlp_width(384, 4, gated=False), mlp_width(384, 4, gated=True)
    (1536, 1024)
    """
    width = int(hidden_size * ratio)
    return (int(width * 2 / 3) + 7) // 8 * 8 if gated else width
