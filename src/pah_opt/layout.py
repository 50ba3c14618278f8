"""What a Vision Transformer is made of, in one vocabulary for every implementation.

A :class:`ModelAdapter` reads a model of one family and answers with a :class:`Layout`: module *paths* (as in
``model.get_submodule(path)``), never the modules themselves, so that a Layout survives a deep copy and can be stored.
Strategies work on Layouts and so never name an implementation.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pah_opt.errors import UnsupportedModelError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Attention:
    """One multi-head self-attention.

    Args:
        path: the attention module.
        query, key, value: the projections; all three are the same path when ``fused``.
        output: the projection after the heads are joined.
        num_heads: how many heads there are.
        head_dim: width of one query/key head.
        value_dim: width of one value head (the same as ``head_dim`` unless pruned apart).
        fused: query, key and value are one linear layer with ``3 * num_heads * head_dim`` rows, in that order.
        native: the projections are raw parameters of ``torch.nn.MultiheadAttention``
            (``in_proj_weight``, ``in_proj_bias``); ``query == key == value == path``.
    """

    path: str
    query: str
    key: str
    value: str
    output: str
    num_heads: int
    head_dim: int
    value_dim: int
    fused: bool = False
    native: bool = False


@dataclass(frozen=True)
class Mlp:
    """One feed-forward network ``fc2(act(fc1(x)))``, or ``fc2(act(gate(x)) * fc1(x))`` when gated.

    Args:
        path: the module that holds both layers (the block itself where there is none).
        fc1: first linear layer, ``(width, hidden_size)``.
        fc2: second linear layer, ``(hidden_size, width)``.
        width: hidden width of the network (``intermediate_size``).
        gate: the gate's linear layer in SwiGLU networks.
    """

    path: str
    fc1: str
    fc2: str
    width: int
    gate: str | None = None


@dataclass(frozen=True)
class Block:
    """One transformer block: norm, attention, norm, MLP, each with a residual connection."""

    path: str
    attention: Attention
    mlp: Mlp
    norms: tuple[str, str]


@dataclass(frozen=True)
class Layout:
    """Where everything is in one model.

    Args:
        blocks: the transformer blocks, first to last.
        blocks_path: the ``nn.ModuleList`` (or ``nn.Sequential``) that holds them.
        patch_embedding: the patch projection (a convolution).
        classifiers: the linear layers that give logits (two for a distilled DeiT; empty for a bare backbone).
        final_norm: the last layer norm.
        hidden_size: embedding width.
        image_size: input height and width in pixels that the model expects.
        patch_size: patch height and width in pixels.
        in_channels: input channels.
        num_classes: width of the logits (0 for a bare backbone).
        prefix_tokens: tokens before the patches (class, distillation, registers).
    """

    blocks: tuple[Block, ...]
    blocks_path: str
    patch_embedding: str
    classifiers: tuple[str, ...]
    final_norm: str
    hidden_size: int
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    in_channels: int
    num_classes: int
    prefix_tokens: int

    @property
    def attention_projections(self) -> tuple[str, ...]:
        """Paths of every query, key, value and output projection, each once, in order."""
        paths = (
            p for b in self.blocks for p in (b.attention.query, b.attention.key, b.attention.value, b.attention.output)
        )
        return tuple(dict.fromkeys(paths))

    @property
    def mlp_layers(self) -> tuple[str, ...]:
        """Paths of every feed-forward linear layer, in order."""
        return tuple(p for b in self.blocks for p in (b.mlp.fc1, b.mlp.gate, b.mlp.fc2) if p is not None)


@runtime_checkable
class ModelAdapter(Protocol):
    """Knows one family of models: where its parts are, and how to keep its attributes true.

    A plugin adds a family by returning an instance from the ``pah_opt_model_adapters`` hook. Subclass it explicitly:
    the methods that are not abstract have defaults that suit most families.
    """

    name: str
    """Short and unique, such as ``hf-vit``; stored in artifacts."""

    @abstractmethod
    def matches(self, model: nn.Module) -> bool:
        """Tell whether ``model`` is of this family, by its structure; must not raise."""

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return ``model`` in a form whose projections are linear layers; by default as it is.

        Called once on the private copy, before any step. An implementation that keeps projections as raw parameters
        (``torch.nn.MultiheadAttention``) swaps those modules for equivalent ones here; the logits stay the same.
        """
        return model

    @abstractmethod
    def layout(self, model: nn.Module) -> Layout:
        """Read the layout from the *tensors* of ``model`` (so it is right after pruning, whatever attributes say).

        Raises:
            UnsupportedModelError: a part is missing; names its path and type.
        """

    @abstractmethod
    def sync(self, model: nn.Module) -> None:
        """Make every attribute and the config agree with the tensors, after shapes or the number of blocks changed.

        ``num_attention_heads``, ``head_dim``, ``scaling``, ``intermediate_size``, ``num_hidden_layers``,
        ``image_size``, ``num_labels`` and their like.
        """

    @abstractmethod
    def disagreements(self, model: nn.Module) -> list[str]:
        """List what attributes say against what the tensors are; empty when the model is true."""

    @abstractmethod
    def structure(self, model: nn.Module) -> dict[str, Any]:
        """Return, as JSON data, what :meth:`rebuild` needs to make an empty model of the same shapes."""

    @abstractmethod
    def rebuild(self, structure: dict[str, Any]) -> nn.Module:
        """Make a model with the shapes that :meth:`structure` described, on the current default device."""

    def resize(self, model: nn.Module, height: int, width: int) -> None:
        """Change the input size, in pixels: interpolate position embeddings in place, keep every attribute true.

        Raises:
            UnsupportedModelError: this family has a fixed input size, or the patch does not divide the size.
        """
        raise UnsupportedModelError(f"models of the family {self.name!r} have a fixed input size")

    def logits(self, output: Any) -> Tensor:
        """Take the logits, ``(batch, num_classes)``, out of what ``model(pixel_values)`` returned.

        Raises:
            UnsupportedModelError: there is no single tensor of logits in ``output``.
        """
        from pah_opt.models.outputs import logits_of

        return logits_of(output)
