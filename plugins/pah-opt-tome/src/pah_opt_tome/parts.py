"""The parts of one block under the names that the families give them, and what a block computes with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from pah_opt.errors import UnsupportedModelError


class Names(NamedTuple):
    """What one family calls the parts of a block; paths are relative to it.

    Args:
        norms: the two norms.
        attention: the module with the attributes of the heads.
        projections: query, key and value; one name when they are fused.
        output: the projection after the heads are joined.
    """

    norms: tuple[str, str]
    attention: str
    projections: tuple[str, ...]
    output: str


_NORMS = (
    ("layernorm_before", "layernorm_after"), ("norm1", "norm2"), ("ln_1", "ln_2"), ("layer_norm1", "layer_norm2"),
)  # fmt: skip
_ATTENTIONS = (
    *(
    (holder, projections, output)
    for holder in ("attention", "attn", "self_attention", "self_attn")
    for projections, output in (
        ((f"{holder}.qkv_proj",), f"{holder}.o_proj"),
        ((f"{holder}.q_proj", f"{holder}.k_proj", f"{holder}.v_proj"), f"{holder}.o_proj"),
        ((f"{holder}.q_proj", f"{holder}.k_proj", f"{holder}.v_proj"), f"{holder}.out_proj"),
        ((f"{holder}.qkv",), f"{holder}.proj"),
    )),
    ("attention.attention", tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
     "attention.output.dense"),
)  # fmt: skip
_SCALES = ("layer_scale", "ls")
_HEAD_DIM = ("head_dim", "attention_head_size")
_EXTRAS = ("norm", "gate", "rope")


@dataclass(frozen=True)
class Parts:
    """One block's parts, found anew in every forward pass: later steps may replace any of them."""

    block: nn.Module
    names: Names

    def _part(self, path: str) -> Any:
        return self.block.get_submodule(path)

    @property
    def attention(self) -> Any:
        """The module with the attributes of the heads."""
        return self._part(self.names.attention)

    @property
    def returns_tuple(self) -> bool:
        """Whether the family's blocks return a one-tuple (transformers 4)."""
        return hasattr(self.block, "intermediate")

    @property
    def scale(self) -> float:
        """What scores are multiplied by."""
        module = self.attention
        # timm's fused kernel takes the width of the heads and ignores `scale`; pah_opt keeps the two equal.
        found = next(
            (value for name in ("scaling", "scale") if isinstance(value := getattr(module, name, None), float)), None
        )
        return float(_head_dim(module) ** -0.5 if found is None else found)

    @property
    def dropout(self) -> float:
        """Dropout of attention weights in training."""
        for name in ("attention_dropout", "attn_drop", "dropout_prob", "dropout"):
            found = getattr(self.attention, name, None)
            found = getattr(found, "p", found)
            if isinstance(found, (int, float)):
                return float(found)
        return 0.0

    def norm1(self, tokens: Tensor) -> Tensor:
        """Normalise before attention."""
        normalised: Tensor = self._part(self.names.norms[0])(tokens)
        return normalised

    def heads(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value, each ``(batch, heads, tokens, width)``."""
        module = self.attention
        projected = [self._part(path)(tokens) for path in self.names.projections]
        if len(projected) == 1:
            whole, width = projected[0], _head_dim(module)
            value_width = getattr(module, "value_dim", width)
            count = whole.shape[-1] // (2 * width + value_width)
            projected = list(whole.split((count * width, count * width, count * value_width), dim=-1))
        count = projected[0].shape[-1] // _head_dim(module)
        query, key, value = (part.unflatten(-1, (count, -1)).transpose(1, 2) for part in projected)
        return _normed(module, "q_norm", query), _normed(module, "k_norm", key), value

    def output(self, joined: Tensor) -> Tensor:
        """Project the joined heads back."""
        projected: Tensor = self._part(self.names.output)(joined)
        return projected

    def after_attention(self, attended: Tensor) -> Tensor:
        """Apply layer scale and dropout to what attention adds."""
        return self._residual(attended, 1)

    def feed_forward(self, tokens: Tensor) -> Tensor:
        """Return tokens with what the feed-forward network adds."""
        block: Any = self.block
        normalised = self._part(self.names.norms[1])(tokens)
        if self.returns_tuple:  # transformers 4 adds the residual inside
            whole: Tensor = block.output(block.intermediate(normalised), tokens)
            return whole
        return tokens + self._residual(block.mlp(normalised), 2)

    def _residual(self, values: Tensor, half: int) -> Tensor:
        names = (*(f"{name}{half}" for name in _SCALES), f"drop_path{half}", "drop_path", "dropout")
        for name in names:
            part = getattr(self.block, name, None)
            if isinstance(part, nn.Module) and not (name == "dropout" and self.returns_tuple):
                values = part(values)
        return values


def _head_dim(module: Any) -> int:
    return int(next(getattr(module, name) for name in _HEAD_DIM if hasattr(module, name)))


def _normed(module: nn.Module, name: str, values: Tensor) -> Tensor:
    norm = getattr(module, name, None)
    return norm(values) if isinstance(norm, nn.Module) else values


def parts_of(block: nn.Module, path: str = "") -> Parts:
    """Find the parts of a block.

    Args:
        block: a transformer block of any family.
        path: where it is, for messages.

    Raises:
        UnsupportedModelError: they are not known, or attention does more than project and attend.
    """
    norms = next((pair for pair in _NORMS if all(_has(block, name) for name in pair)), None)
    found = next((a for a in _ATTENTIONS if all(_has(block, part) for part in (*a[1], a[2]))), None)
    if norms is None or found is None:
        children = ", ".join(f"{name} ({type(child).__name__})" for name, child in block.named_children())
        raise UnsupportedModelError(
            f"{path or 'the block'} ({type(block).__name__}) has no parts that token merging knows: {children}; "
            "leave the tome step out for this model"
        )
    parts = Parts(block, Names(norms, *found))
    extras = [name for name in _EXTRAS if _does_something(getattr(parts.attention, name, None))]
    if extras:
        raise UnsupportedModelError(
            f"{path}.{found[0]} ({type(parts.attention).__name__}) also applies {', '.join(extras)}, which token "
            "merging does not support; leave the tome step out for this model"
        )
    return parts


def _has(block: nn.Module, path: str) -> bool:
    try:
        block.get_submodule(path)
    except AttributeError:
        return False
    return True


def _does_something(part: Any) -> bool:
    return isinstance(part, nn.Module) and not isinstance(part, nn.Identity)
