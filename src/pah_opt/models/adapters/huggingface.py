"""What the adapters of Hugging Face models share: attributes of the embeddings, and the config."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pah_opt.models.adapters.base import StructuralAdapter, pair_of
from pah_opt.models.adapters.facts import ABSENT, Fact, as_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from pah_opt.layout import Layout

UNEVEN = "pah_opt_blocks"
"""Attribute of a config that describes blocks which the config's own attributes cannot.

It is a list with one object per block, ``{"attention", "num_heads", "head_dim", "value_dim", "mlp_width"}``
(``attention`` is ``native``, or ``separate`` or ``fused`` for :class:`pah_opt.models.attention.SelfAttention`). It is
JSON, so it is saved with the config. While it is there, ``num_attention_heads``, ``head_dim`` and ``intermediate_size``
hold the largest value of any block. It is absent from a model that plain transformers can load.

transformers' own ``per_layer_config`` is no alternative: its ViT, DeiT and DINOv2 classes cannot be built from it.
"""


class HuggingFaceAdapter(StructuralAdapter):
    """A family of transformers models with ``config`` and ``embeddings.patch_embeddings``."""

    homes: tuple[str, ...] = ("transformers.models",)

    def recognises(self, model: nn.Module) -> bool:
        """Tell whether the parts of this family are there, and a config."""
        return hasattr(model, "config") and super().recognises(model)

    def stated_image_size(self, model: nn.Module, root: str) -> tuple[int, int]:
        """Read it from the patch embeddings."""
        return pair_of(self.embeddings(model, root).patch_embeddings.image_size)

    def state_image_size(self, model: nn.Module, root: str, size: tuple[int, int]) -> None:
        """Write it to the patch embeddings."""
        self.embeddings(model, root).patch_embeddings.image_size = size

    def prefix_tokens(self, model: nn.Module, root: str) -> tuple[int, int]:
        """Count class, distillation and register tokens; registers have no position embedding."""
        embeddings = self.embeddings(model, root)
        tokens = 1 + int(getattr(embeddings, "distillation_token", None) is not None)
        registers = getattr(embeddings, "register_tokens", None)
        return tokens + (0 if registers is None else int(registers.shape[1])), tokens

    @staticmethod
    def embeddings(model: nn.Module, root: str) -> Any:
        """Return the module that makes tokens of pixels."""
        return model.get_submodule(f"{root}.embeddings" if root else "embeddings")

    def arguments(self, model: nn.Module) -> dict[str, Any]:
        """Return the config and the implementation of attention."""
        config: Any = model.config
        data: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
        return {"config": data, "attn_implementation": config._attn_implementation}  # noqa: SLF001  # has no public name

    def construct(self, kind: type[nn.Module], arguments: dict[str, Any]) -> nn.Module:
        """Make the config, and the model from it."""
        config_class: Any = kind.config_class  # type: ignore[attr-defined]  # every transformers model has one
        config = config_class.from_dict(arguments["config"], attn_implementation=arguments["attn_implementation"])
        return kind(config)

    def family_facts(self, model: nn.Module, layout: Layout) -> Iterator[Fact]:
        """Yield what embeddings, ``num_labels`` and the config must say."""
        yield from self.embedding_facts(model, layout)
        if layout.classifiers and hasattr(model, "num_labels"):
            yield Fact(model, "", "num_labels", layout.num_classes)
        yield from self.config_facts(model, layout)

    def embedding_facts(self, model: nn.Module, layout: Layout) -> Iterator[Fact]:
        """Yield what the attributes of the embeddings must say."""
        root = self.root(model)
        embeddings, where = self.embeddings(model, root), f"{root}.embeddings" if root else "embeddings"
        patches, inner = embeddings.patch_embeddings, f"{where}.patch_embeddings"
        height, width = layout.image_size
        yield Fact(patches, inner, "image_size", layout.image_size, size=True)
        yield Fact(patches, inner, "patch_size", layout.patch_size, size=True)
        yield Fact(patches, inner, "num_patches", (height // layout.patch_size[0]) * (width // layout.patch_size[1]))
        yield Fact(patches, inner, "num_channels", layout.in_channels)
        if hasattr(embeddings, "image_size"):
            yield Fact(embeddings, where, "image_size", layout.image_size, size=True)

    def config_facts(self, model: nn.Module, layout: Layout) -> Iterator[Fact]:
        """Yield what the config must say."""
        config: Any = model.config
        yield Fact(config, "config", "hidden_size", layout.hidden_size)
        yield Fact(config, "config", "num_hidden_layers", len(layout.blocks))
        yield Fact(config, "config", "image_size", as_size(layout.image_size), size=True)
        yield Fact(config, "config", "patch_size", as_size(layout.patch_size), size=True)
        yield Fact(config, "config", "num_channels", layout.in_channels)
        if layout.classifiers:
            yield Fact(config, "config", "num_labels", layout.num_classes)
        yield from self.head_facts(config, layout)
        mlp_attribute, mlp_value = self.mlp_statement(config, layout)
        yield Fact(config, "config", mlp_attribute, mlp_value)
        blocks = [self._block_data(model, block) for block in layout.blocks]
        width = self.stated_mlp_width(config, layout, mlp_value)
        yield Fact(config, "config", UNEVEN, ABSENT if is_plain(blocks, width) else blocks)

    def head_facts(self, config: Any, layout: Layout) -> Iterator[Fact]:
        """Yield what a config must say of attention heads: their number, and their width where that does not follow."""
        heads = max(block.attention.num_heads for block in layout.blocks)
        head_dim = max(block.attention.head_dim for block in layout.blocks)
        yield Fact(config, "config", "num_attention_heads", heads)
        # transformers takes hidden_size // num_attention_heads unless the config states a head_dim.
        if hasattr(config, "head_dim") or layout.hidden_size // heads != head_dim:
            yield Fact(config, "config", "head_dim", head_dim)

    def mlp_statement(self, config: Any, layout: Layout) -> tuple[str, Any]:
        """Return the config's attribute for the width of the feed-forward networks, and what it must say."""
        return "intermediate_size", max(block.mlp.width for block in layout.blocks)

    def stated_mlp_width(self, config: Any, layout: Layout, value: Any) -> int:
        """Return the width that transformers makes of that value."""
        return int(value)


def is_plain(blocks: list[dict[str, Any]], width: int) -> bool:
    """Tell whether a config's own attributes describe these blocks: all native, alike, and of that MLP width."""
    first = blocks[0]
    alike = all(block == first for block in blocks)
    return (
        alike
        and first["attention"] == "native"
        and first["value_dim"] == first["head_dim"]
        and first["mlp_width"] == width
    )
