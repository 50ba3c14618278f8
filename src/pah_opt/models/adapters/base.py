"""What the built-in ModelAdapters share; a family adds names, facts and how it is constructed.

This module and the adapters import torch only when a model is at hand: plugins are listed without it.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, cast

from pah_opt.errors import ArtifactError, UnsupportedModelError
from pah_opt.layout import ModelAdapter
from pah_opt.models.adapters.facts import Fact, as_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from pah_opt.layout import Block, Layout
    from pah_opt.models.adapters.names import AttentionNames, FamilyNames

STRUCTURE_FORMAT = 1
"""Version of what :meth:`StructuralAdapter.structure` returns."""


class StructuralAdapter(ModelAdapter):
    """Recognises a family by the names of its modules and reads everything else from tensors.

    Class attributes:
        names: what the family calls its parts.
        homes: prefixes of the modules that a saved model's class may come from.
        square: whether the family's forward pass takes square images only.
    """

    names: FamilyNames
    homes: tuple[str, ...]
    square = False

    # What a family adds.

    @abstractmethod
    def stated_image_size(self, model: nn.Module, root: str) -> tuple[int, int]:
        """Return height and width in pixels that the model states."""

    @abstractmethod
    def prefix_tokens(self, model: nn.Module, root: str) -> tuple[int, int]:
        """Return the number of tokens before the patches, and how many of them have a position embedding."""

    @abstractmethod
    def family_facts(self, model: nn.Module, layout: Layout) -> Iterator[Fact]:
        """Yield what the family's own attributes and config must say."""

    @abstractmethod
    def state_image_size(self, model: nn.Module, root: str, size: tuple[int, int]) -> None:
        """Write the one attribute that :meth:`stated_image_size` reads."""

    @abstractmethod
    def arguments(self, model: nn.Module) -> dict[str, Any]:
        """Return, as JSON data, what the family's class is constructed from."""

    @abstractmethod
    def construct(self, kind: type[nn.Module], arguments: dict[str, Any]) -> nn.Module:
        """Construct an object of ``kind`` from what :meth:`arguments` returned, on the ``meta`` device."""

    def antialiases(self, model: nn.Module, root: str) -> bool:
        """Tell whether the model low-pass filters position embeddings when it interpolates them to a smaller grid."""
        return False

    def recognises(self, model: nn.Module) -> bool:
        """Tell whether the parts of this family are there; may raise."""
        from pah_opt.models.adapters.reading import root_of

        return root_of(model, self.names) is not None

    # The ModelAdapter protocol.

    def matches(self, model: nn.Module) -> bool:
        """Tell whether the parts of this family are there."""
        try:
            return self.recognises(model)
        except Exception:  # noqa: BLE001  # whatever a foreign module's attributes raise, it is not of this family
            return False

    def prepare(self, model: nn.Module) -> nn.Module:
        """Make attributes true that the caller's own changes left stale, such as ``num_labels`` of a new classifier."""
        self.sync(model)
        return model

    def root(self, model: nn.Module) -> str:
        """Return the path of the backbone inside ``model``.

        Raises:
            UnsupportedModelError: the parts of the family are not there.
        """
        from pah_opt.models.adapters.reading import root_of

        root = root_of(model, self.names)
        if root is None:
            raise UnsupportedModelError(
                f"{type(model).__name__} does not have the parts of {self.name} "
                f"({self.names.blocks}, {self.names.patch_embedding})"
            )
        return root

    def layout(self, model: nn.Module) -> Layout:
        """Read the layout from the tensors."""
        from pah_opt.models.adapters.reading import read_layout

        root = self.root(model)
        tokens, with_position = self.prefix_tokens(model, root)
        stated = self.stated_image_size(model, root)
        return read_layout(model, self.names, root, stated=stated, prefix_tokens=tokens, positions_prefix=with_position)

    def sync(self, model: nn.Module) -> None:
        """Make every attribute and the config agree with the tensors.

        Heads are split by the attention's ``head_dim``, as its forward pass does; a change of head widths must have
        written it (:func:`pah_opt.models.attributes.set_head_shape`). A scale of the scores that differs from
        ``head_dim ** -0.5`` is folded into the query projection.
        """
        from pah_opt.models.attributes import scaling_of, set_scaling

        layout = self.layout(model)
        for block in layout.blocks:
            set_scaling(model, block.attention, scaling_of(model.get_submodule(block.attention.path), block.attention))
        for fact in self._facts(model, layout):
            if not fact.is_true:
                fact.write()

    def disagreements(self, model: nn.Module) -> list[str]:
        """List false attributes, or say which part cannot be read at all."""
        try:
            layout = self.layout(model)
        except UnsupportedModelError as error:
            return [str(error)]
        return [str(fact) for fact in self._facts(model, layout) if not fact.is_true]

    def resize(self, model: nn.Module, height: int, width: int) -> None:
        """Interpolate the position embeddings for another input size and make every attribute say so."""
        from pah_opt.models.adapters.reading import join
        from pah_opt.models.positions import resize_positions

        root, layout = self.root(model), self.layout(model)
        if self.square and height != width:
            raise UnsupportedModelError(f"{self.name} models take square images only, not {height}x{width} pixels")
        _, with_position = self.prefix_tokens(model, root)
        resize_positions(
            model, join(root, self.names.positions), layout, (height, width),
            prefix=with_position, antialias=self.antialiases(model, root),
        )  # fmt: skip
        self.state_image_size(model, root, (height, width))
        self.sync(model)

    def structure(self, model: nn.Module) -> dict[str, Any]:
        """Return the class, its arguments, and where blocks and tensors differ from what those give."""
        from pah_opt.models.adapters.constructors import qualified_name
        from pah_opt.models.adapters.shapes import floating_types, shape_differences

        false = self.disagreements(model)
        if false:
            raise UnsupportedModelError(f"attributes disagree with the tensors, call sync() first: {'; '.join(false)}")
        described = {
            "format": STRUCTURE_FORMAT,
            "class": qualified_name(type(model), self.homes),
            "arguments": self.arguments(model),
            "blocks": [self._block_data(model, block) for block in self.layout(model).blocks],
            "types": floating_types(model),
        }
        return described | {"shapes": shape_differences(model, self._template(described))}

    def rebuild(self, structure: dict[str, Any]) -> nn.Module:
        """Construct the class, then give blocks and tensors the shapes of the saved model; values are not set."""
        import torch

        from pah_opt.models.adapters.shapes import apply_shapes, apply_types

        if structure.get("format") != STRUCTURE_FORMAT:
            raise ArtifactError(
                f"the structure has format {structure.get('format')!r}, this version reads {STRUCTURE_FORMAT}"
            )
        model = self._template(structure)
        apply_shapes(model, structure["shapes"])
        apply_types(model, structure["types"])
        self._apply_heads(model, structure["blocks"])
        self.sync(model)
        device = torch.get_default_device()
        return model if device.type == "meta" else model.to_empty(device=device)

    def reshape(self, model: nn.Module, blocks: list[dict[str, Any]]) -> None:
        """Give the blocks of ``model`` these shapes, values not set.

        Args:
            model: changed in place; has as many blocks.
            blocks: for each block, what :meth:`structure` says of it under ``blocks``.

        Raises:
            ArtifactError: the number of blocks differs.
        """
        from pah_opt.models.adapters.shapes import apply_shapes, block_shapes

        self._converted(model, [block["attention"] for block in blocks])
        for block, data in zip(self.layout(model).blocks, blocks, strict=True):
            apply_shapes(model, block_shapes(model, block, data))
        self._apply_heads(model, blocks)
        self.sync(model)

    # How it is done.

    def _facts(self, model: nn.Module, layout: Layout) -> Iterator[Fact]:
        from pah_opt.models.adapters.shapes import module_facts

        yield from module_facts(model)
        for block in layout.blocks:
            yield from self._attention_facts(model, block)
        yield from self.family_facts(model, layout)

    def _attention_facts(self, model: nn.Module, block: Block) -> Iterator[Fact]:
        names, attention = self._attention_names(model, block), block.attention
        module, where = model.get_submodule(attention.path), attention.path
        yield Fact(module, where, names.heads, attention.num_heads)
        if names.joined:
            yield Fact(module, where, names.joined, attention.num_heads * attention.value_dim)
        if names.scale:
            yield Fact(module, where, names.scale, attention.head_dim**-0.5)

    def _attention_names(self, model: nn.Module, block: Block) -> AttentionNames:
        from pah_opt.models.adapters.reading import attention_names

        # A Block comes from the layout, which refuses blocks without one.
        return cast("AttentionNames", attention_names(model.get_submodule(block.path), self.names))

    def _block_data(self, model: nn.Module, block: Block) -> dict[str, Any]:
        attention = block.attention
        return {
            "attention": self._attention_names(model, block).style,
            "num_heads": attention.num_heads,
            "head_dim": attention.head_dim,
            "value_dim": attention.value_dim,
            "mlp_width": block.mlp.width,
        }

    def _template(self, described: dict[str, Any]) -> nn.Module:
        """Construct the class on the meta device, each block with the kind of attention it is described with."""
        import torch

        from pah_opt.models.adapters.constructors import import_class

        with torch.device("meta"):
            model = self.construct(import_class(described["class"], self.homes), copy.deepcopy(described["arguments"]))
            return self._converted(model.eval(), [block["attention"] for block in described["blocks"]])

    def _converted(self, model: nn.Module, styles: list[str]) -> nn.Module:
        from pah_opt.models.conversion import convert_attention

        blocks = self.layout(model).blocks
        if len(blocks) != len(styles):
            raise ArtifactError(f"the structure describes {len(styles)} blocks, its arguments give {len(blocks)}")
        for block, style in zip(blocks, styles, strict=True):
            if style != self._attention_names(model, block).style:
                convert_attention(model, block.attention, fused=style == "fused")
        return model

    def _apply_heads(self, model: nn.Module, blocks: list[dict[str, Any]]) -> None:
        from pah_opt.models.adapters.reading import attention_names, join, part
        from pah_opt.models.attributes import set_head_shape

        holder = part(model, join(self.root(model), self.names.blocks))
        for block, data in zip(holder.children(), blocks, strict=True):
            names = attention_names(block, self.names)
            module = part(block, names.path if names else self.names.attention_module)
            shape = {key: data[key] for key in ("num_heads", "head_dim", "value_dim")}
            set_head_shape(module, **shape)
            if names and names.scale:
                setattr(module, names.scale, data["head_dim"] ** -0.5)


def pair_of(value: Any) -> tuple[int, int]:
    """Return ``(height, width)`` of a stated size."""
    height, width = as_pair(value)
    return int(height), int(width)
