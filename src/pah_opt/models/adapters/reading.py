"""Read a Layout from the tensors of a model, given the names of its family."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

from pah_opt.errors import UnsupportedModelError
from pah_opt.layout import Attention, Block, Layout, Mlp
from pah_opt.models.adapters.names import MULTIHEAD

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.models.adapters.names import AttentionNames, FamilyNames, MlpNames


def join(*parts: str) -> str:
    """Join parts of a module path, leaving empty ones out."""
    return ".".join(part for part in parts if part)


def find(model: nn.Module, path: str) -> nn.Module | None:
    """Return the module at ``path``, or None."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def has_all(model: nn.Module, root: str, paths: Iterable[str]) -> bool:
    """Tell whether there is a module at each of ``paths`` under ``root``."""
    return all(find(model, join(root, path)) is not None for path in paths)


def part(model: nn.Module, path: str) -> nn.Module:
    """Return the module at ``path``.

    Raises:
        UnsupportedModelError: there is none; names the path and what is there instead.
    """
    module = find(model, path)
    if module is None:
        parent = path
        while parent and find(model, parent) is None:
            parent = parent.rpartition(".")[0]
        holder = type(model.get_submodule(parent)).__name__
        raise UnsupportedModelError(
            f"{type(model).__name__} has no module {path!r}: {parent or 'the model'} is a {holder} without it; "
            "this family is supported with its standard parts only"
        )
    return module


def weight_of(module: nn.Module, path: str) -> Tensor:
    """Return a module's weight.

    Raises:
        UnsupportedModelError: it has none.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        raise UnsupportedModelError(f"{path} is a {type(module).__name__} without a weight tensor")
    return weight


def linear_shape(module: nn.Module, path: str) -> tuple[int, int]:
    """Return ``(out_features, in_features)`` of a linear layer, however its weight is stored.

    Raises:
        UnsupportedModelError: it is no linear layer.
    """
    weight = getattr(module, "weight", None)
    # Weights that several values share an element of (bitsandbytes 4-bit) are integers of another shape.
    if isinstance(weight, Tensor) and weight.ndim == 2 and weight.is_floating_point():
        return int(weight.shape[0]), int(weight.shape[1])
    stated = (getattr(module, "out_features", None), getattr(module, "in_features", None))
    if not all(isinstance(width, int) for width in stated):
        raise UnsupportedModelError(f"{path} is a {type(module).__name__}, not a linear layer")
    return stated  # type: ignore[return-value]  # both are int, as just checked


def root_of(model: nn.Module, names: FamilyNames) -> str | None:
    """Return the path of the backbone under which every part of the family is found, or None."""
    return next((root for root in names.roots if _fits(model, root, names)), None)


def _fits(model: nn.Module, root: str, names: FamilyNames) -> bool:
    blocks = find(model, join(root, names.blocks))
    if blocks is None or not has_all(model, root, (names.patch_embedding,)) or not _tells_apart(model, root, names):
        return False
    first = next(iter(blocks.children()), None)
    return first is not None and attention_names(first, names) is not None and mlp_names(first, names) is not None


def _tells_apart(model: nn.Module, root: str, names: FamilyNames) -> bool:
    def has(path: str) -> bool:
        holder = find(model, join(root, path.rpartition(".")[0]))
        return getattr(holder, path.rpartition(".")[2], None) is not None

    return all(has(path) for path in names.present) and not any(has(path) for path in names.absent)


def attention_names(block: nn.Module, names: FamilyNames) -> AttentionNames | None:
    """Return the names of the attention that this block has, or None."""
    return next((a for a in names.attentions if has_all(block, "", a.parts) and _has_attributes(block, a)), None)


def _has_attributes(block: nn.Module, names: AttentionNames) -> bool:
    module = find(block, names.path)
    wanted = (names.head_dim, names.value_dim)
    return all(hasattr(module, attribute) for attribute in wanted if attribute is not None)


def mlp_names(block: nn.Module, names: FamilyNames) -> MlpNames | None:
    """Return the names of the feed-forward network that this block has, or None."""
    return next((m for m in names.mlps if has_all(block, "", m.parts)), None)


def read_attention(block: nn.Module, path: str, names: AttentionNames) -> Attention:
    """Read one attention.

    The projections' rows are split into heads as the forward pass does it: by ``head_dim``.

    Raises:
        UnsupportedModelError: the rows are no multiple of it.
    """
    module = part(block, names.path)
    head_dim = int(getattr(module, names.head_dim))
    value_dim = int(getattr(module, names.value_dim)) if names.value_dim else head_dim
    native = names.style == MULTIHEAD
    rows = _projection_rows(part(block, names.query), join(path, names.query))
    per_head = 2 * head_dim + value_dim if names.fused else head_dim
    if rows % per_head:
        raise UnsupportedModelError(
            f"{join(path, names.query)} has {rows} rows, which heads of {names.head_dim} {head_dim} do not divide; "
            f"set {join(path, names.path)}.{names.head_dim} to the width the heads now have"
        )
    heads = rows // per_head
    into = linear_shape(part(block, names.output), join(path, names.output))[1]
    if into != heads * value_dim:
        raise UnsupportedModelError(
            f"{join(path, names.output)} takes {into} features, the {heads} heads of {join(path, names.path)} make "
            f"{heads * value_dim} (value heads of width {value_dim})"
        )
    query, key, value, output = (join(path, name) for name in names.parts)
    return Attention(
        join(path, names.path), query, key, value, output, heads, head_dim, value_dim,
        fused=names.fused and not native, native=native,
    )  # fmt: skip


def _projection_rows(module: nn.Module, path: str) -> int:
    raw = getattr(module, "in_proj_weight", None)
    return int(raw.shape[0]) if isinstance(raw, Tensor) else linear_shape(module, path)[0]


def read_mlp(block: nn.Module, path: str, names: MlpNames) -> Mlp:
    """Read one feed-forward network.

    Raises:
        UnsupportedModelError: a layer is not linear, or the two do not fit.
    """
    width = linear_shape(part(block, names.fc1), join(path, names.fc1))[0]
    into = linear_shape(part(block, names.fc2), join(path, names.fc2))[1]
    if into != width:  # also a packed SwiGLU, whose first layer holds gate and value together
        raise UnsupportedModelError(
            f"{join(path, names.fc1)} makes {width} features and {join(path, names.fc2)} takes {into}; supported are "
            "feed-forward networks in which one feeds the other"
        )
    gate = join(path, names.gate) if names.gate else None
    return Mlp(join(path, names.path), join(path, names.fc1), join(path, names.fc2), width, gate)


def read_blocks(model: nn.Module, holder: str, names: FamilyNames) -> tuple[Block, ...]:
    """Read every block under ``holder``.

    Raises:
        UnsupportedModelError: a block has an attention or feed-forward network of no known kind, or is there twice.
    """
    blocks = part(model, holder)
    _refuse_shared(blocks, holder)
    return tuple(read_block(block, join(holder, name), names) for name, block in blocks.named_children())


def _refuse_shared(blocks: nn.Module, holder: str) -> None:
    """Find one module at several positions, which listing children would leave out.

    Raises:
        UnsupportedModelError: there is one; names its positions.
    """
    positions: dict[int, list[str]] = {}
    for name, module in blocks.named_modules(remove_duplicate=False):
        if name and "." not in name:
            positions.setdefault(id(module), []).append(join(holder, name))
    shared = next((paths for paths in positions.values() if len(paths) > 1), None)
    if shared:
        raise UnsupportedModelError(
            f"{' and '.join(shared)} are one module, so that a change of one block would change the others; give each "
            "position its own block first, with copy.deepcopy"
        )


def read_block(block: nn.Module, path: str, names: FamilyNames) -> Block:
    """Read one block.

    Raises:
        UnsupportedModelError: its attention or feed-forward network is of no known kind.
    """
    attention, mlp = attention_names(block, names), mlp_names(block, names)
    if attention is None or mlp is None:
        children = ", ".join(f"{name} ({type(child).__name__})" for name, child in block.named_children())
        missing = "attention" if attention is None else "feed-forward network"
        raise UnsupportedModelError(f"{path} ({type(block).__name__}) has no {missing} of a known kind: {children}")
    norms = (join(path, names.norms[0]), join(path, names.norms[1]))
    return Block(path, read_attention(block, path, attention), read_mlp(block, path, mlp), norms)


def grid_size(patches: int, stated: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of patches: as stated when that agrees with their number, else a square.

    Args:
        patches: number of patches that have a position embedding.
        stated: height and width in pixels that the model states.
        patch: height and width of a patch in pixels.

    Raises:
        UnsupportedModelError: the number is neither what is stated nor a square.
    """
    grid = (stated[0] // patch[0], stated[1] // patch[1])
    if grid[0] * grid[1] == patches:
        return grid
    side = math.isqrt(patches)
    if side * side != patches:
        raise UnsupportedModelError(
            f"there are position embeddings for {patches} patches, which is neither a square nor the "
            f"{grid[0]}x{grid[1]} patches of the stated image size {stated[0]}x{stated[1]}"
        )
    return side, side


def read_layout(
    model: nn.Module,
    names: FamilyNames,
    root: str,
    *,
    stated: tuple[int, int],
    prefix_tokens: int,
    positions_prefix: int,
) -> Layout:
    """Read the whole layout.

    Args:
        model: the model.
        names: of its family.
        root: path of the backbone.
        stated: height and width in pixels that the model states.
        prefix_tokens: tokens before the patches.
        positions_prefix: how many of them have a position embedding.

    Raises:
        UnsupportedModelError: a part is missing or of another kind.
    """
    patch_path = join(root, names.patch_embedding)
    projection = weight_of(part(model, patch_path), patch_path)
    patch = (int(projection.shape[2]), int(projection.shape[3]))
    patches = position_table(model, root, names).shape[-2] - positions_prefix
    rows, columns = grid_size(patches, stated, patch)
    classifiers = tuple(path for path in names.classifiers if hasattr(find(model, path), "weight"))
    return Layout(
        blocks=read_blocks(model, join(root, names.blocks), names),
        blocks_path=join(root, names.blocks),
        patch_embedding=patch_path,
        classifiers=classifiers,
        final_norm=_final_norm(model, root, names),
        hidden_size=int(projection.shape[0]),
        image_size=(rows * patch[0], columns * patch[1]),
        patch_size=patch,
        in_channels=int(projection.shape[1]),
        num_classes=linear_shape(part(model, classifiers[0]), classifiers[0])[0] if classifiers else 0,
        prefix_tokens=prefix_tokens,
    )


def _final_norm(model: nn.Module, root: str, names: FamilyNames) -> str:
    paths = [join(root, name) for name in names.final_norms]
    return next((path for path in paths if hasattr(find(model, path), "weight")), paths[0])


def position_table(model: nn.Module, root: str, names: FamilyNames) -> Tensor:
    """Return the position embeddings, ``(1, tokens, hidden_size)``.

    Raises:
        UnsupportedModelError: the model has none.
    """
    holder, _, attribute = join(root, names.positions).rpartition(".")
    table = getattr(part(model, holder), attribute, None)
    if not isinstance(table, Tensor):
        raise UnsupportedModelError(
            f"{join(holder, attribute)} is {type(table).__name__}; "
            "only learned absolute position embeddings are supported"
        )
    return table
