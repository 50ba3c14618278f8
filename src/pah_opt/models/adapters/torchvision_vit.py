"""torchvision's ``VisionTransformer``: its ``nn.MultiheadAttention`` is replaced by linear layers before any step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pah_opt.models.adapters.base import StructuralAdapter, pair_of
from pah_opt.models.adapters.facts import Fact
from pah_opt.models.adapters.names import MULTIHEAD, AttentionNames, FamilyNames, MlpNames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from pah_opt.layout import Layout

_ATTENTION = "self_attention"


class TorchvisionViT(StructuralAdapter):
    """``torchvision.models.VisionTransformer`` with a plain patch projection.

    ``nn.MultiheadAttention`` keeps query, key and value as one raw parameter, which no strategy for linear layers
    sees; :meth:`prepare` swaps it for :class:`pah_opt.models.attention.SelfAttention` with the same logits.
    """

    name = "torchvision-vit"
    square = True
    homes = ("torchvision.models.vision_transformer", "pah_opt.testing.torchvision_vit")
    names = FamilyNames(
        roots=("",), blocks="encoder.layers",
        native=AttentionNames(_ATTENTION, _ATTENTION, _ATTENTION, _ATTENTION, f"{_ATTENTION}.out_proj",
                              style=MULTIHEAD, heads="num_heads", scale=None),
        attention_module=_ATTENTION, mlps=(MlpNames("mlp", "mlp.0", "mlp.3"),), norms=("ln_1", "ln_2"),
        final_norms=("encoder.ln",), patch_embedding="conv_proj", positions="encoder.pos_embedding",
        classifiers=("heads.head",),
    )  # fmt: skip

    def prepare(self, model: nn.Module) -> nn.Module:
        """Replace every ``nn.MultiheadAttention`` by linear layers, and make stale attributes true."""
        from pah_opt.models.conversion import convert_multihead

        return super().prepare(convert_multihead(model))

    def stated_image_size(self, model: nn.Module, root: str) -> tuple[int, int]:
        """Read the one side that the model states."""
        return pair_of(model.image_size)

    def state_image_size(self, model: nn.Module, root: str, size: tuple[int, int]) -> None:
        """Write the one side that the model states."""
        model.image_size = size[0]  # type: ignore[assignment]  # an int in torchvision, not a submodule

    def prefix_tokens(self, model: nn.Module, root: str) -> tuple[int, int]:
        """There is one class token, with a position embedding."""
        return 1, 1

    def family_facts(self, model: nn.Module, layout: Layout) -> Iterator[Fact]:
        """Yield what the model's and the encoder's attributes must say."""
        (height, width), patch = layout.image_size, layout.patch_size[0]
        yield Fact(model, "", "image_size", height)
        yield Fact(model, "", "patch_size", patch)
        yield Fact(model, "", "hidden_dim", layout.hidden_size)
        yield Fact(model, "", "mlp_dim", max(block.mlp.width for block in layout.blocks))
        yield Fact(model, "", "num_classes", layout.num_classes)
        yield Fact(model, "", "seq_length", 1 + (height // patch) * (width // patch))
        for block in layout.blocks:
            yield Fact(model.get_submodule(block.path), block.path, "num_heads", block.attention.num_heads)

    def arguments(self, model: nn.Module) -> dict[str, Any]:
        """Return the arguments of ``VisionTransformer``."""
        found: Any = model
        layout = self.layout(model)
        heads = max(block.attention.num_heads for block in layout.blocks)
        return {
            "image_size": found.image_size,
            "patch_size": found.patch_size,
            "num_layers": len(layout.blocks),
            "num_heads": heads,
            # The template's heads need to divide its width; the tensors' own shapes are applied to it afterwards.
            "hidden_dim": layout.hidden_size if layout.hidden_size % heads == 0 else heads,
            "mlp_dim": found.mlp_dim,
            "dropout": float(found.dropout),
            "attention_dropout": float(found.attention_dropout),
            "num_classes": layout.num_classes,
            "representation_size": found.representation_size,
            "norm_eps": model.get_submodule(layout.final_norm).eps,
        }

    def construct(self, kind: type[nn.Module], arguments: dict[str, Any]) -> nn.Module:
        """Call the class."""
        from functools import partial

        from torch import nn

        built = dict(arguments)
        return kind(norm_layer=partial(nn.LayerNorm, eps=built.pop("norm_eps")), **built)
