"""timm's ``VisionTransformer``: one linear layer for query, key and value; optional norms of both; register tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pah_opt.errors import UnsupportedModelError
from pah_opt.models.adapters.base import StructuralAdapter, pair_of
from pah_opt.models.adapters.facts import Fact
from pah_opt.models.adapters.names import AttentionNames, FamilyNames, MlpNames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from pah_opt.layout import Layout


class TimmViT(StructuralAdapter):
    """``timm.models.vision_transformer.VisionTransformer`` with its standard blocks and attention.

    Its fused attention computes the scale from the width of the heads and ignores ``scale``; folding the difference
    into the projection (see :func:`pah_opt.models.attributes.set_scaling`) keeps both ways right.
    """

    name = "timm-vit"
    homes = ("timm.models.vision_transformer", "timm.models.deit", "pah_opt.testing.timm_vit")
    names = FamilyNames(
        roots=("",), blocks="blocks",
        native=AttentionNames("attn", "attn.qkv", "attn.qkv", "attn.qkv", "attn.proj",
                              heads="num_heads", scale="scale"),
        attention_module="attn", mlps=(MlpNames("mlp", "mlp.fc1", "mlp.fc2"),), norms=("norm1", "norm2"),
        final_norms=("norm", "fc_norm"), patch_embedding="patch_embed.proj", positions="pos_embed",
        classifiers=("head", "head_dist"),
    )  # fmt: skip

    def layout(self, model: nn.Module) -> Layout:
        """Read the layout from the tensors.

        Raises:
            UnsupportedModelError: a part or a block is of another kind; names it.
        """
        layout = super().layout(model)
        for block in layout.blocks:
            _refuse_other_block(model.get_submodule(block.path), block.path)
        return layout

    def antialiases(self, model: nn.Module, root: str) -> bool:
        """As timm's ``resample_abs_pos_embed`` does."""
        return True

    def stated_image_size(self, model: nn.Module, root: str) -> tuple[int, int]:
        """Read it from the patch embedding."""
        stated: Any = model.patch_embed
        if stated.img_size is None:
            raise UnsupportedModelError("patch_embed.img_size is None; make the model with a fixed img_size")
        return pair_of(stated.img_size)

    def state_image_size(self, model: nn.Module, root: str, size: tuple[int, int]) -> None:
        """Write it to the patch embedding."""
        embed: Any = model.patch_embed
        embed.img_size = size

    def prefix_tokens(self, model: nn.Module, root: str) -> tuple[int, int]:
        """Count class, distillation and register tokens, and those of them that have a position embedding."""
        found: Any = model
        present = (getattr(found, name, None) for name in ("cls_token", "dist_token", "reg_token"))
        tokens = sum(int(token.shape[1]) for token in present if token is not None)
        return tokens, 0 if found.no_embed_class else tokens

    def family_facts(self, model: nn.Module, layout: Layout) -> Iterator[Fact]:
        """Yield what the model's and the patch embedding's attributes must say."""
        embed, grid = (
            model.patch_embed,
            tuple(s // p for s, p in zip(layout.image_size, layout.patch_size, strict=True)),
        )
        yield Fact(embed, "patch_embed", "img_size", layout.image_size, size=True)
        yield Fact(embed, "patch_embed", "patch_size", layout.patch_size, size=True)
        yield Fact(embed, "patch_embed", "grid_size", grid)
        yield Fact(embed, "patch_embed", "num_patches", grid[0] * grid[1])
        for attribute in ("embed_dim", "num_features", "head_hidden_size"):
            if hasattr(model, attribute):
                yield Fact(model, "", attribute, layout.hidden_size)
        yield Fact(model, "", "num_classes", layout.num_classes)
        yield Fact(model, "", "num_prefix_tokens", layout.prefix_tokens)
        for block in layout.blocks:
            attention = block.attention
            module = model.get_submodule(attention.path)
            if hasattr(module, "attn_dim"):
                yield Fact(module, attention.path, "attn_dim", attention.num_heads * attention.head_dim)

    def arguments(self, model: nn.Module) -> dict[str, Any]:
        """Return the arguments of ``VisionTransformer``."""
        return timm_arguments(model, self.layout(model))

    def construct(self, kind: type[nn.Module], arguments: dict[str, Any]) -> nn.Module:
        """Call the class."""
        from functools import partial

        from torch import nn

        built = dict(arguments)
        return kind(norm_layer=partial(nn.LayerNorm, eps=built.pop("norm_eps")), **built)


def timm_arguments(model: Any, layout: Layout) -> dict[str, Any]:
    """Return what ``VisionTransformer`` must be constructed with to have the parts of ``model``, as JSON data.

    Raises:
        UnsupportedModelError: a part is of a kind that no argument here describes; names it.
    """
    first = model.blocks[0]
    _refuse_variants(model, first)
    heads = max(block.attention.num_heads for block in layout.blocks)
    scale = getattr(first.ls1, "init_values", None)
    return {
        "img_size": list(layout.image_size),
        "patch_size": list(layout.patch_size),
        "in_chans": layout.in_channels,
        "num_classes": layout.num_classes,
        "global_pool": model.global_pool,
        # The template's heads need to divide its width; the tensors' own shapes are applied to it afterwards.
        "embed_dim": layout.hidden_size if layout.hidden_size % heads == 0 else heads,
        "depth": len(layout.blocks),
        "num_heads": heads,
        "mlp_ratio": max(block.mlp.width for block in layout.blocks) / layout.hidden_size,
        "qkv_bias": getattr(first.attn, "qkv", None) is None or first.attn.qkv.bias is not None,
        "qk_norm": _is_norm(getattr(first.attn, "q_norm", None)),
        "proj_bias": first.mlp.fc2.bias is not None,
        "init_values": scale if scale is None else float(scale),
        "class_token": model.cls_token is not None,
        "no_embed_class": bool(model.no_embed_class),
        "reg_tokens": 0 if model.reg_token is None else int(model.reg_token.shape[1]),
        "pre_norm": _is_norm(model.norm_pre),
        "final_norm": _is_norm(model.norm) or _is_norm(model.fc_norm),
        "fc_norm": _is_norm(model.fc_norm),
        "pool_include_prefix": bool(getattr(model, "pool_include_prefix", False)),
        "norm_eps": first.norm1.eps,
    }


def _refuse_other_block(block: nn.Module, path: str) -> None:
    """Refuse blocks with the same parts in another order: in timm's ``ResPostBlock`` norms follow what they scale.

    Raises:
        UnsupportedModelError: it is no pre-norm ``Block``; names its class.
    """
    # A subclass answers for its own forward pass: that is how plugins change what a block does.
    known = any(kind.__name__ == "Block" for kind in type(block).__mro__)
    if not known or not (hasattr(block, "ls1") and hasattr(block, "ls2")):
        raise UnsupportedModelError(
            f"{path} is a {type(block).__name__}; of timm's blocks only the pre-norm Block (norm1, attn, ls1, then "
            "norm2, mlp, ls2) is supported: make the model with block_fn=Block, or add a ModelAdapter for its blocks"
        )


def _is_norm(module: Any) -> bool:
    return getattr(module, "weight", None) is not None


def _refuse_variants(model: Any, first: Any) -> None:
    kinds = {
        "act": (type(first.mlp.act).__name__, "GELU"),
        "norm1": (type(first.norm1).__name__, "LayerNorm"),
        "attn_pool": (type(getattr(model, "attn_pool", None)).__name__, "NoneType"),
    }
    for part, (found, wanted) in kinds.items():
        if found not in (wanted, f"{wanted}Fp32"):
            raise UnsupportedModelError(f"{part} is a {found}; saving timm models is supported with {wanted} only")
