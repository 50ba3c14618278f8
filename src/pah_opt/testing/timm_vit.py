"""timm's ``VisionTransformer``: a stand-in with its modules, names and attributes, for where timm cannot be imported.

Only what decides structure and results is here: fused ``qkv``, norms of queries and keys, register tokens, class
tokens without a position, layer scale, pooling, and the two ways of computing attention.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

Norm = Callable[[int], nn.Module]
_DEFAULT_NORM: Norm = partial(nn.LayerNorm, eps=1e-6)


class PatchEmbed(nn.Module):
    """Cuts images into patches and projects them."""

    def __init__(self, img_size: int | tuple[int, int], patch_size: int | tuple[int, int], in_chans: int,
                 embed_dim: int, *, bias: bool = True) -> None:  # fmt: skip
        super().__init__()
        self.patch_size = _pair(patch_size)
        self.img_size = _pair(img_size)
        self.grid_size = (self.img_size[0] // self.patch_size[0], self.img_size[1] // self.patch_size[1])
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = nn.Conv2d(in_chans, embed_dim, self.patch_size, self.patch_size, bias=bias)
        self.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, patches, embed_dim)``."""
        if tuple(x.shape[2:]) != tuple(self.img_size):
            raise AssertionError(f"Input size {tuple(x.shape[2:])} doesn't match model {tuple(self.img_size)}.")
        projected: Tensor = self.norm(self.proj(x).flatten(2).transpose(1, 2))
        return projected


class Attention(nn.Module):
    """Self-attention with one linear layer for query, key and value."""

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool, qk_norm: bool, proj_bias: bool,
                 norm_layer: Norm) -> None:  # fmt: skip
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.attn_dim = num_heads * self.head_dim
        self.scale = self.head_dim**-0.5
        self.fused_attn = True
        self.qkv = nn.Linear(dim, 3 * self.attn_dim, bias=qkv_bias)
        self.q_norm = norm_layer(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm_layer(self.head_dim) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(0.0)
        self.norm = nn.Identity()
        self.proj = nn.Linear(self.attn_dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(0.0)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Return ``(batch, tokens, dim)``."""
        batch, tokens, _ = x.shape
        query, key, value = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        query, key = self.q_norm(query), self.k_norm(key)
        if self.fused_attn:  # takes its scale from the width of the heads, not from self.scale
            x = scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, is_causal=is_causal)
        else:
            x = self.attn_drop((query * self.scale @ key.transpose(-2, -1)).softmax(dim=-1)) @ value
        joined = self.norm(x.transpose(1, 2).reshape(batch, tokens, self.attn_dim))
        output: Tensor = self.proj_drop(self.proj(joined))
        return output


class Mlp(nn.Module):
    """The feed-forward network."""

    def __init__(self, in_features: int, hidden_features: int, *, bias: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features, bias=bias)
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(0.0)
        self.norm = nn.Identity()
        self.fc2 = nn.Linear(hidden_features, in_features, bias=bias)
        self.drop2 = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, tokens, in_features)``."""
        output: Tensor = self.drop2(self.fc2(self.norm(self.drop1(self.act(self.fc1(x))))))
        return output


class LayerScale(nn.Module):
    """Multiplies each channel by a learned factor."""

    def __init__(self, dim: int, init_values: float) -> None:
        super().__init__()
        self.init_values = init_values
        self.gamma = nn.Parameter(torch.full((dim,), init_values))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of ``x``."""
        return x * self.gamma


class Block(nn.Module):
    """One block."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, *, qkv_bias: bool, qk_norm: bool, proj_bias: bool,
                 init_values: float | None, norm_layer: Norm) -> None:  # fmt: skip
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = Attention(dim, num_heads, qkv_bias=qkv_bias, qk_norm=qk_norm, proj_bias=proj_bias,
                              norm_layer=norm_layer)  # fmt: skip
        self.ls1 = LayerScale(dim, init_values) if init_values else nn.Identity()
        self.drop_path1 = nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), bias=proj_bias)
        self.ls2 = LayerScale(dim, init_values) if init_values else nn.Identity()
        self.drop_path2 = nn.Identity()

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Return ``(batch, tokens, dim)``."""
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), attn_mask=attn_mask)))
        output: Tensor = x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        return output


class VisionTransformer(nn.Module):
    """``timm.models.vision_transformer.VisionTransformer``; arguments are those of timm."""

    def __init__(
        self, img_size: int | tuple[int, int] = 224, patch_size: int | tuple[int, int] = 16, in_chans: int = 3,
        num_classes: int = 1000, global_pool: str = "token", embed_dim: int = 768, depth: int = 12,
        num_heads: int = 12, mlp_ratio: float = 4.0, *, qkv_bias: bool = True, qk_norm: bool = False,
        proj_bias: bool = True, init_values: float | None = None, class_token: bool = True,
        no_embed_class: bool = False, reg_tokens: int = 0, pre_norm: bool = False, final_norm: bool = True,
        fc_norm: bool | None = None, pool_include_prefix: bool = False, norm_layer: Norm | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        norm = norm_layer or _DEFAULT_NORM
        norm_after_pooling = global_pool == "avg" if fc_norm is None else fc_norm
        self.num_classes = num_classes
        self.global_pool = global_pool
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.num_prefix_tokens = int(class_token) + reg_tokens
        self.num_reg_tokens = reg_tokens
        self.has_class_token = class_token
        self.no_embed_class = no_embed_class
        self.pool_include_prefix = pool_include_prefix
        self.dynamic_img_size = False
        self.patch_embed = PatchEmbed(img_size, patch_size, in_chans, embed_dim, bias=not pre_norm)
        positions = self.patch_embed.num_patches + (0 if no_embed_class else self.num_prefix_tokens)
        self.cls_token = nn.Parameter(1e-6 * torch.randn(1, 1, embed_dim)) if class_token else None
        self.reg_token = nn.Parameter(1e-6 * torch.randn(1, reg_tokens, embed_dim)) if reg_tokens else None
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, positions, embed_dim))
        self.pos_drop = nn.Dropout(0.0)
        self.patch_drop = nn.Identity()
        self.norm_pre = norm(embed_dim) if pre_norm else nn.Identity()
        self.blocks = nn.Sequential(*(
            Block(embed_dim, num_heads, mlp_ratio, qkv_bias=qkv_bias, qk_norm=qk_norm, proj_bias=proj_bias,
                  init_values=init_values, norm_layer=norm)
            for _ in range(depth)
        ))  # fmt: skip
        self.norm = norm(embed_dim) if final_norm and not norm_after_pooling else nn.Identity()
        self.attn_pool = None
        self.fc_norm = norm(embed_dim) if final_norm and norm_after_pooling else nn.Identity()
        self.head_drop = nn.Dropout(0.0)
        self.head = nn.Linear(embed_dim, num_classes) if num_classes > 0 else nn.Identity()

    def _with_prefix(self, patches: Tensor) -> Tensor:
        tokens = (token for token in (self.cls_token, self.reg_token) if token is not None)
        prefix = [token.expand(patches.shape[0], -1, -1) for token in tokens]
        if self.no_embed_class:
            return torch.cat((*prefix, patches + self.pos_embed), dim=1)
        return torch.cat((*prefix, patches), dim=1) + self.pos_embed

    def _pooled(self, tokens: Tensor) -> Tensor:
        if self.global_pool == "token":
            return tokens[:, 0]
        return tokens[:, 0 if self.pool_include_prefix else self.num_prefix_tokens :].mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, ``(batch, num_classes)``."""
        tokens = self.norm_pre(self.patch_drop(self.pos_drop(self._with_prefix(self.patch_embed(x)))))
        tokens = self.norm(self.blocks(tokens))
        logits: Tensor = self.head(self.head_drop(self.fc_norm(self._pooled(tokens))))
        return logits


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
