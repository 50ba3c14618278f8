"""The ``fused-attention`` and ``fused-qkv`` Optimizers; the work is in :mod:`pah_opt.strategies.runtime.fusing`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from pah_opt.optimizer import Effect, Goal, Optimizer, OptimizerConfig, Tags

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.optimizer import Context


ConfigT = TypeVar("ConfigT", bound=OptimizerConfig)


class Fusion(Optimizer[ConfigT]):
    """A strategy that has the same computed by fewer kernels; a subclass says what."""

    goal: ClassVar[Goal] = "latency"

    def expects(self, config: ConfigT) -> Effect:
        """Promise another way of computing; that the logits agree is checked while fusing."""
        return Effect(new_type=True)


class FusedAttentionConfig(OptimizerConfig):
    """Parameters of `fused-attention`: none."""


class FusedAttention(Fusion[FusedAttentionConfig]):
    """Compute attention with ``scaled_dot_product_attention`` where the model writes it out.

    The fused kernels never hold the matrix of scores: less memory, fewer passes over it. Models of transformers use
    them by default; those made with ``attn_implementation="eager"``, those laid out as in transformers 4, and timm's
    with ``fused_attn`` off do not. Attention weights can no longer be had as an output.
    """

    name: ClassVar[str] = "fused-attention"
    config_type = FusedAttentionConfig
    summary: ClassVar[str] = (
        "Compute attention with fused kernels (scaled_dot_product_attention) instead of step by step."
    )
    references: ClassVar[tuple[str, ...]] = (
        "FlashAttention: https://arxiv.org/abs/2205.14135",
        "FlashAttention-2: https://arxiv.org/abs/2307.08691",
    )

    def tags(self, config: FusedAttentionConfig) -> Tags:
        """Need modules that can still be changed; linear layers may be of any type."""
        return Tags(requires=frozenset({"graph:eager"}))

    def check(self, model: nn.Module, config: FusedAttentionConfig, context: Context) -> list[str]:
        """Find a model whose attention is fused already."""
        from pah_opt.strategies.runtime.fusing import written_out

        if not written_out(model, context.adapter.layout(model)):
            return ["no attention is written out step by step: every one is fused already; leave the step out"]
        return []

    def apply(self, model: nn.Module, config: FusedAttentionConfig, context: Context) -> nn.Module:
        """Switch every attention in place, and compare the logits."""
        from pah_opt.strategies.runtime.fusing import fuse_attention

        return fuse_attention(model, context)


class FusedQkvConfig(OptimizerConfig):
    """Parameters of `fused-qkv`: none."""


class FusedQkv(Fusion[FusedQkvConfig]):
    """Compute query, key and value with one matrix product instead of three.

    The same arithmetic in fewer, larger kernels, which helps small batches on a GPU most. Blocks that have one already
    (timm) are left alone. The attention becomes :class:`pah_opt.models.attention.SelfAttention`, which computes
    ``scaled_dot_product_attention``; attention weights can no longer be had as an output.
    """

    name: ClassVar[str] = "fused-qkv"
    config_type = FusedQkvConfig
    summary: ClassVar[str] = "Compute query, key and value with one matrix product."
    references: ClassVar[tuple[str, ...]] = (
        "One product for query, key and value (NVIDIA): https://github.com/NVIDIA/Megatron-LM",
        "timm's attention, which is laid out so: https://github.com/huggingface/pytorch-image-models",
    )

    def tags(self, config: FusedQkvConfig) -> Tags:
        """Need plain weights, which are stacked."""
        return Tags(requires=frozenset({"weights:float", "graph:eager"}))

    def check(self, model: nn.Module, config: FusedQkvConfig, context: Context) -> list[str]:
        """Find a model with nothing left to fuse, and attention that does more than project and attend."""
        from pah_opt.strategies.runtime.fusing import qkv_problems

        return qkv_problems(model, context.adapter.layout(model))

    def apply(self, model: nn.Module, config: FusedQkvConfig, context: Context) -> nn.Module:
        """Stack the three projections of every block in place, and compare the logits."""
        from pah_opt.strategies.runtime.fusing import fuse_qkv

        return fuse_qkv(model, context)
