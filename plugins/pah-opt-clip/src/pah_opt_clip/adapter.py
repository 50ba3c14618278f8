"""The ModelAdapter of CLIP's vision tower: what its parts are called, and what its attributes must say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pah_opt.errors import UnsupportedModelError
from pah_opt.models import AttentionNames, Fact, FamilyNames, HuggingFaceAdapter, MlpNames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from pah_opt.layout import Layout


class ClipVision(HuggingFaceAdapter):
    """``CLIPForImageClassification``: its classifier reads the mean of the patch tokens.

    Everything of the vision tower is configured in ``config.vision_config``. CLIP takes the width of its heads from the
    hidden width and their number, and states it in its modules; ``head_dim`` in the config keeps what pruning left.
    """

    name = "clip-vision"
    square = True
    names = FamilyNames(
        roots=("vision_model",), blocks="encoder.layers",
        native=AttentionNames("self_attn", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                              "self_attn.out_proj", heads="num_heads", scale="scale"),
        attention_module="self_attn", mlps=(MlpNames("mlp", "mlp.fc1", "mlp.fc2"),),
        norms=("layer_norm1", "layer_norm2"), final_norms=("post_layernorm",),
        patch_embedding="embeddings.patch_embedding", positions="embeddings.position_embedding.weight",
        classifiers=("classifier",), present=("embeddings.class_embedding",),
    )  # fmt: skip

    def resize(self, model: nn.Module, height: int, width: int) -> None:
        """Refuse: a learned table that a plain lookup reads fixes the input size."""
        raise UnsupportedModelError(
            f"{type(model).__name__} looks its positions up in a table of fixed length, so that its input size cannot "
            f"become {height}x{width}; leave the input-size step out"
        )

    def stated_image_size(self, model: nn.Module, root: str) -> tuple[int, int]:
        """Read the one side that the embeddings state."""
        size = int(self.embeddings(model, root).image_size)
        return size, size

    def prefix_tokens(self, model: nn.Module, root: str) -> tuple[int, int]:
        """There is one class token, with a position embedding."""
        return 1, 1

    def embedding_facts(self, model: nn.Module, layout: Layout) -> Iterator[Fact]:
        """Yield what CLIP's embeddings must say."""
        root = self.root(model)
        embeddings, where = self.embeddings(model, root), f"{root}.embeddings"
        patches = (layout.image_size[0] // layout.patch_size[0]) ** 2
        yield Fact(embeddings, where, "image_size", layout.image_size[0])
        yield Fact(embeddings, where, "patch_size", layout.patch_size[0])
        yield Fact(embeddings, where, "embed_dim", layout.hidden_size)
        yield Fact(embeddings, where, "num_patches", patches)
        yield Fact(embeddings, where, "num_positions", patches + 1)

    def config_facts(self, model: nn.Module, layout: Layout) -> Iterator[Fact]:
        """Yield what ``config.vision_config`` must say."""
        whole: Any = model.config
        config, where = whole.vision_config, "config.vision_config"
        yield Fact(whole, "config", "num_labels", layout.num_classes)
        yield Fact(config, where, "hidden_size", layout.hidden_size)
        yield Fact(config, where, "num_hidden_layers", len(layout.blocks))
        yield Fact(config, where, "image_size", layout.image_size[0])
        yield Fact(config, where, "patch_size", layout.patch_size[0])
        yield Fact(config, where, "num_channels", layout.in_channels)
        yield Fact(config, where, "intermediate_size", max(block.mlp.width for block in layout.blocks))
        yield from self.head_facts(config, layout)

    def construct(self, kind: type[nn.Module], arguments: dict[str, Any]) -> nn.Module:
        """Make the model from a config that CLIP accepts."""
        vision = arguments["config"]["vision_config"]
        # CLIP refuses a number of heads that does not divide its width; shapes and heads are applied afterwards.
        if vision["hidden_size"] % vision["num_attention_heads"]:
            vision["num_attention_heads"] = 1
        return super().construct(kind, arguments)
