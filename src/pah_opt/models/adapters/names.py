"""What the parts of one family of models are called: names as data, so that an adapter is mostly a table."""

from __future__ import annotations

from dataclasses import dataclass, replace

MULTIHEAD = "multihead"
"""Style of an attention that keeps query, key and value as one raw parameter (``torch.nn.MultiheadAttention``)."""


@dataclass(frozen=True)
class AttentionNames:
    """Where one attention keeps its parts; paths are relative to the block.

    Args:
        path: the module that holds the attributes named below.
        query, key, value: the projections; all the same when one layer serves the three.
        output: the projection after the heads are joined.
        style: ``native`` (the family's own module), :data:`MULTIHEAD`, or ``separate`` or ``fused`` for
            :class:`pah_opt.models.attention.SelfAttention` in its place.
        heads: attribute with the number of heads.
        head_dim: attribute with the width of a query/key head; the forward pass splits heads by it.
        value_dim: attribute with the width of a value head, where it may differ.
        scale: attribute that the scores are multiplied by.
        joined: attribute with ``heads * head_dim``.
    """

    path: str
    query: str
    key: str
    value: str
    output: str
    style: str = "native"
    heads: str = "num_attention_heads"
    head_dim: str = "head_dim"
    value_dim: str | None = None
    scale: str | None = "scaling"
    joined: str | None = None

    @property
    def fused(self) -> bool:
        """Whether one linear layer serves query, key and value."""
        return self.query == self.key

    @property
    def parts(self) -> tuple[str, ...]:
        """Relative paths of the projections."""
        return (self.query, self.key, self.value, self.output)


def standard_attentions(path: str) -> tuple[AttentionNames, AttentionNames]:
    """Return the names inside a :class:`pah_opt.models.attention.SelfAttention` at ``path``: separate, then fused."""
    q, k, v, o = (f"{path}.{part}_proj" for part in "qkvo")
    separate = AttentionNames(path, q, k, v, o, style="separate", value_dim="value_dim")
    fused = f"{path}.qkv_proj"
    return separate, replace(separate, query=fused, key=fused, value=fused, style="fused")


@dataclass(frozen=True)
class MlpNames:
    """Where one feed-forward network keeps its parts; paths are relative to the block."""

    path: str
    fc1: str
    fc2: str
    gate: str | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """Relative paths of the layers."""
        return tuple(part for part in (self.fc1, self.fc2, self.gate) if part is not None)


@dataclass(frozen=True)
class FamilyNames:
    """Where a family keeps its parts.

    Args:
        roots: paths of the backbone, the first that fits is used; ``""`` for the model itself.
        blocks: the holder of the blocks, under the root.
        native: the family's own attention.
        attention_module: what a :class:`~pah_opt.models.attention.SelfAttention` replaces, relative to a block.
        mlps: kinds of feed-forward networks, the first that fits is used.
        norms: the two norms of a block, relative to it.
        final_norms: the last norm, under the root; the first that is a norm is used.
        patch_embedding: the patch projection, under the root.
        positions: the position embeddings (a parameter), under the root.
        classifiers: layers that give logits, from the model.
        present, absent: attributes under the root that tell families apart.
    """

    roots: tuple[str, ...]
    blocks: str
    native: AttentionNames
    attention_module: str
    mlps: tuple[MlpNames, ...]
    norms: tuple[str, str]
    final_norms: tuple[str, ...]
    patch_embedding: str
    positions: str
    classifiers: tuple[str, ...]
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def attentions(self) -> tuple[AttentionNames, ...]:
        """Every kind of attention a block may have, the library's own first."""
        separate, fused = standard_attentions(self.attention_module)
        return separate, fused, self.native
