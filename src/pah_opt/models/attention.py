"""A self-attention of the library's own that can stand in for any family's, with separate or fused projections.

It is used where a family's own module cannot express what is wanted: ``torch.nn.MultiheadAttention`` keeps its
projections as raw parameters, value heads may be narrower than query and key heads, and one matrix product can serve
query, key and value. It always computes ``scaled_dot_product_attention``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from collections.abc import Sequence


class SelfAttention(nn.Module):
    """Multi-head self-attention over ``(batch, tokens, hidden_size)``.

    Args:
        hidden_size: width of the tokens.
        num_heads: number of heads.
        head_dim: width of a query/key head.
        value_dim: width of a value head.
        fused: one layer ``qkv_proj`` with the rows of query, then key, then value; else ``q_proj``, ``k_proj``
            and ``v_proj``.
        qkv_bias: whether the projections have a bias.
        output_bias: whether ``o_proj`` has one.
        scaling: what the scores are multiplied by; ``head_dim ** -0.5`` by default.
        dropout: of the attention weights, in training.
        pair: return ``(output, None)`` as Hugging Face and torchvision blocks expect, else the output alone (timm).
    """

    def __init__(
        self, hidden_size: int, num_heads: int, head_dim: int, value_dim: int, *, fused: bool = False,
        qkv_bias: bool = True, output_bias: bool = True, scaling: float | None = None, dropout: float = 0.0,
        pair: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_attention_heads = num_heads
        self.head_dim = head_dim
        self.value_dim = value_dim
        self.scaling = head_dim**-0.5 if scaling is None else scaling
        self.attention_dropout = dropout
        self.pair = pair
        rows, value_rows = num_heads * head_dim, num_heads * value_dim
        if fused:
            self.qkv_proj = nn.Linear(hidden_size, 2 * rows + value_rows, bias=qkv_bias)
        else:
            self.q_proj = nn.Linear(hidden_size, rows, bias=qkv_bias)
            self.k_proj = nn.Linear(hidden_size, rows, bias=qkv_bias)
            self.v_proj = nn.Linear(hidden_size, value_rows, bias=qkv_bias)
        self.o_proj = nn.Linear(value_rows, hidden_size, bias=output_bias)

    @property
    def fused(self) -> bool:
        """Whether one layer serves query, key and value."""
        return hasattr(self, "qkv_proj")

    def forward(
        self, hidden_states: Tensor | None = None, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor | tuple[Tensor, None]:
        """Attend.

        Args:
            hidden_states: ``(batch, tokens, hidden_size)``; also accepted as ``query``, as
                ``torch.nn.MultiheadAttention`` names it.
            attention_mask: added to the scores (or boolean), as ``scaled_dot_product_attention`` takes it; also
                accepted as ``attn_mask``.
            **kwargs: what a block passes beside; key and value are taken to be the query.
        """
        tokens = kwargs["query"] if hidden_states is None else hidden_states
        mask = kwargs.get("attn_mask") if attention_mask is None else attention_mask
        query, key, value = (self._split(part, tokens) for part in self._project(tokens))
        dropout = self.attention_dropout if self.training else 0.0
        joined = scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout, scale=self.scaling)
        output: Tensor = self.o_proj(joined.transpose(1, 2).flatten(2))
        return (output, None) if self.pair else output

    def _project(self, tokens: Tensor) -> Sequence[Tensor]:
        if not self.fused:
            return self.q_proj(tokens), self.k_proj(tokens), self.v_proj(tokens)
        rows, value_rows = self.num_attention_heads * self.head_dim, self.num_attention_heads * self.value_dim
        parts: Sequence[Tensor] = self.qkv_proj(tokens).split((rows, rows, value_rows), dim=-1)
        return parts

    def _split(self, part: Tensor, tokens: Tensor) -> Tensor:
        return part.view(*tokens.shape[:-1], self.num_attention_heads, -1).transpose(1, 2)
