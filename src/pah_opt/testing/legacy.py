"""Hugging Face ViT in the module layout of transformers 4: a stand-in with its modules, names and attributes.

Importing transformers is left to the constructors, so that this module is light.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import ViTConfig


def legacy_config(**options: Any) -> ViTConfig:
    """Return a ``ViTConfig``."""
    from transformers import ViTConfig

    return ViTConfig(**options)


class _ConfigClass:
    """Gives the class its ``config_class`` without importing transformers for it."""

    def __get__(self, instance: object, owner: type) -> Any:
        from transformers import ViTConfig

        return ViTConfig


class ViTPatchEmbeddings(nn.Module):
    """Cuts images into patches and projects them."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.image_size = _pair(config.image_size)
        self.patch_size = _pair(config.patch_size)
        self.num_channels = config.num_channels
        self.num_patches = math.prod(s // p for s, p in zip(self.image_size, self.patch_size, strict=True))
        self.projection = nn.Conv2d(config.num_channels, config.hidden_size, self.patch_size, self.patch_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return ``(batch, patches, hidden_size)``."""
        if tuple(pixel_values.shape[2:]) != self.image_size:
            raise ValueError(f"Input image size {tuple(pixel_values.shape[2:])} doesn't match model {self.image_size}.")
        projected: Tensor = self.projection(pixel_values.to(self.projection.weight.dtype))
        return projected.flatten(2).transpose(1, 2)


class ViTEmbeddings(nn.Module):
    """Class token, patches and position embeddings."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, config.hidden_size))
        self.patch_embeddings = ViTPatchEmbeddings(config)
        self.position_embeddings = nn.Parameter(
            torch.randn(1, self.patch_embeddings.num_patches + 1, config.hidden_size)
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return ``(batch, 1 + patches, hidden_size)``."""
        patches = self.patch_embeddings(pixel_values)
        tokens = torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)
        embedded: Tensor = self.dropout(tokens + self.position_embeddings)
        return embedded


class ViTSelfAttention(nn.Module):
    """Query, key and value; heads are split by ``num_attention_heads`` and ``attention_head_size``."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
        self.all_head_size = self.num_attention_heads * self.attention_head_size
        self.query = nn.Linear(config.hidden_size, self.all_head_size, bias=config.qkv_bias)
        self.key = nn.Linear(config.hidden_size, self.all_head_size, bias=config.qkv_bias)
        self.value = nn.Linear(config.hidden_size, self.all_head_size, bias=config.qkv_bias)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def _split(self, projected: Tensor) -> Tensor:
        shape = (*projected.shape[:-1], self.num_attention_heads, self.attention_head_size)
        return projected.view(shape).permute(0, 2, 1, 3)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor]:
        """Return a one-tuple of ``(batch, tokens, all_head_size)``."""
        query, key, value = (self._split(part(hidden_states)) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.attention_head_size)
        context = self.dropout(scores.softmax(dim=-1)) @ value
        context = context.permute(0, 2, 1, 3).contiguous()
        return (context.view(*context.shape[:2], self.all_head_size),)


class ViTSelfOutput(nn.Module):
    """The projection after the heads are joined."""

    def __init__(self, config: Any, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return ``(batch, tokens, hidden_size)``."""
        projected: Tensor = self.dropout(self.dense(hidden_states))
        return projected


class ViTAttention(nn.Module):
    """Self-attention and its output projection, one module deeper than in transformers 5."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.attention = ViTSelfAttention(config)
        self.output = ViTSelfOutput(config, self.attention.all_head_size)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor]:
        """Return a one-tuple of ``(batch, tokens, hidden_size)``."""
        return (self.output(self.attention(hidden_states)[0]),)


class ViTIntermediate(nn.Module):
    """First half of the feed-forward network."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = nn.GELU()

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return ``(batch, tokens, intermediate_size)``."""
        activated: Tensor = self.intermediate_act_fn(self.dense(hidden_states))
        return activated


class ViTOutput(nn.Module):
    """Second half of the feed-forward network, with the residual connection."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, residual: Tensor) -> Tensor:
        """Return ``(batch, tokens, hidden_size)``."""
        projected: Tensor = self.dropout(self.dense(hidden_states))
        return projected + residual


class ViTLayer(nn.Module):
    """One block."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.attention = ViTAttention(config)
        self.intermediate = ViTIntermediate(config)
        self.output = ViTOutput(config)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor]:
        """Return a one-tuple of ``(batch, tokens, hidden_size)``."""
        hidden_states = self.attention(self.layernorm_before(hidden_states))[0] + hidden_states
        return (self.output(self.intermediate(self.layernorm_after(hidden_states)), hidden_states),)


class ViTEncoder(nn.Module):
    """The blocks, under ``layer``."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layer = nn.ModuleList([ViTLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return ``(batch, tokens, hidden_size)``."""
        for block in self.layer:
            hidden_states = block(hidden_states)[0]
        return hidden_states


class ViTModel(nn.Module):
    """The backbone."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.embeddings = ViTEmbeddings(config)
        self.encoder = ViTEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return ``(batch, tokens, hidden_size)``."""
        normalised: Tensor = self.layernorm(self.encoder(self.embeddings(pixel_values)))
        return normalised


class ViTForImageClassification(nn.Module):
    """``transformers.ViTForImageClassification`` as transformers 4 laid it out.

    Args:
        config: a ``ViTConfig`` (see :func:`legacy_config`).
    """

    config_class = _ConfigClass()

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.num_labels = config.num_labels
        self.vit = ViTModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Any:
        """Return an ``ImageClassifierOutput`` with ``logits``, ``(batch, num_labels)``."""
        from transformers.modeling_outputs import ImageClassifierOutput

        logits = self.classifier(self.vit(pixel_values)[:, 0])
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)
