"""torchvision's ``VisionTransformer``: a stand-in with its modules, names and attributes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
_DEFAULT_NORM: Norm = partial(nn.LayerNorm, eps=1e-6)


class MLPBlock(nn.Sequential):
    """The feed-forward network: a sequence whose linear layers are ``0`` and ``3``."""

    def __init__(self, in_dim: int, mlp_dim: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(in_dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, in_dim), nn.Dropout(dropout)
        )


class EncoderBlock(nn.Module):
    """One block; its attention is a ``torch.nn.MultiheadAttention``."""

    def __init__(self, num_heads: int, hidden_dim: int, mlp_dim: int, dropout: float, attention_dropout: float,
                 norm_layer: Norm) -> None:  # fmt: skip
        super().__init__()
        self.num_heads = num_heads
        self.ln_1 = norm_layer(hidden_dim)
        self.self_attention = nn.MultiheadAttention(hidden_dim, num_heads, dropout=attention_dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.ln_2 = norm_layer(hidden_dim)
        self.mlp = MLPBlock(hidden_dim, mlp_dim, dropout)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torchvision's name
        """Return ``(batch, tokens, hidden_dim)``."""
        normalised = self.ln_1(input)
        attended, _ = self.self_attention(query=normalised, key=normalised, value=normalised, need_weights=False)
        hidden = self.dropout(attended) + input
        output: Tensor = hidden + self.mlp(self.ln_2(hidden))
        return output


class Encoder(nn.Module):
    """Position embeddings, the blocks, and the last norm."""

    def __init__(self, seq_length: int, num_layers: int, num_heads: int, hidden_dim: int, mlp_dim: int, dropout: float,
                 attention_dropout: float, norm_layer: Norm) -> None:  # fmt: skip
        super().__init__()
        self.pos_embedding = nn.Parameter(0.02 * torch.randn(1, seq_length, hidden_dim))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential()
        for index in range(num_layers):
            block = EncoderBlock(num_heads, hidden_dim, mlp_dim, dropout, attention_dropout, norm_layer)
            self.layers.add_module(f"encoder_layer_{index}", block)
        self.ln = norm_layer(hidden_dim)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torchvision's name
        """Return ``(batch, tokens, hidden_dim)``."""
        output: Tensor = self.ln(self.layers(self.dropout(input + self.pos_embedding)))
        return output


class VisionTransformer(nn.Module):
    """``torchvision.models.VisionTransformer``; arguments are those of torchvision."""

    def __init__(
        self, image_size: int, patch_size: int, num_layers: int, num_heads: int, hidden_dim: int, mlp_dim: int,
        dropout: float = 0.0, attention_dropout: float = 0.0, num_classes: int = 1000,
        representation_size: int | None = None, norm_layer: Norm = _DEFAULT_NORM,
    ) -> None:  # fmt: skip
        super().__init__()
        self.image_size = image_size
        self.patch_size = patch_size
        self.hidden_dim = hidden_dim
        self.mlp_dim = mlp_dim
        self.attention_dropout = attention_dropout
        self.dropout = dropout
        self.num_classes = num_classes
        self.representation_size = representation_size
        self.norm_layer = norm_layer
        self.conv_proj = nn.Conv2d(3, hidden_dim, patch_size, patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, hidden_dim))
        self.seq_length = (image_size // patch_size) ** 2 + 1
        self.encoder = Encoder(
            self.seq_length, num_layers, num_heads, hidden_dim, mlp_dim, dropout, attention_dropout, norm_layer
        )
        self.heads = nn.Sequential()
        if representation_size is not None:
            self.heads.add_module("pre_logits", nn.Linear(hidden_dim, representation_size))
            self.heads.add_module("act", nn.Tanh())
        self.heads.add_module("head", nn.Linear(representation_size or hidden_dim, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, ``(batch, num_classes)``."""
        if tuple(x.shape[2:]) != (self.image_size, self.image_size):
            raise AssertionError(f"Wrong image size! Expected {self.image_size} but got {tuple(x.shape[2:])}!")
        side = self.image_size // self.patch_size
        patches = self.conv_proj(x).reshape(x.shape[0], self.hidden_dim, side * side).permute(0, 2, 1)
        tokens = torch.cat((self.class_token.expand(x.shape[0], -1, -1), patches), dim=1)
        logits: Tensor = self.heads(self.encoder(tokens)[:, 0])
        return logits
