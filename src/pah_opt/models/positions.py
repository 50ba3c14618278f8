"""Interpolate learned position embeddings, so that a model takes images of another size."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pah_opt.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pah_opt.layout import Layout, ModelAdapter


def interpolated(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], *, prefix: int, antialias: bool = False
) -> Tensor:
    """Resample position embeddings from one grid of patches to another, bicubically and in float32.

    Args:
        table: ``(1, prefix + rows * columns, hidden_size)``.
        old: rows and columns of the table.
        new: rows and columns wanted.
        prefix: leading embeddings that belong to no patch and stay as they are.
        antialias: low-pass filter when the grid shrinks, as timm does, and DINOv2 with registers.

    Returns:
        ``(1, prefix + new rows * new columns, hidden_size)``, of the type of ``table``.
    """
    kept, patches = table[:, :prefix], table[:, prefix:]
    grid = patches.reshape(1, *old, -1).permute(0, 3, 1, 2).float()
    resampled = interpolate(grid, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat((kept, resampled.to(table.dtype).permute(0, 2, 3, 1).flatten(1, 2)), dim=1)


def size_problems(layout: Layout, size: tuple[int, int]) -> list[str]:
    """Return why a model cannot take images of this height and width; empty when it can."""
    return [
        f"{name} {pixels} is not a multiple of the model's patch of {patch} pixels; "
        f"the nearest is {_nearest(pixels, patch)}"
        for name, pixels, patch in zip(("height", "width"), size, layout.patch_size, strict=True)
        if pixels < patch or pixels % patch
    ]


def _nearest(pixels: int, patch: int) -> int:
    return max(1, round(pixels / patch)) * patch


@torch.no_grad()
def resize_positions(
    model: nn.Module, path: str, layout: Layout, size: tuple[int, int], *, prefix: int, antialias: bool = False
) -> None:
    """Replace the position embeddings of a model by interpolated ones.

    Args:
        model: changed in place.
        path: of the parameter.
        layout: of ``model``, before the change.
        size: new height and width in pixels.
        prefix: leading embeddings that belong to no patch.
        antialias: see :func:`interpolated`.

    Raises:
        UnsupportedModelError: the size is not a multiple of the patch.
    """
    problems = size_problems(layout, size)
    if problems:
        raise UnsupportedModelError("; ".join(problems))
    rows, columns = layout.patch_size
    old = (layout.image_size[0] // rows, layout.image_size[1] // columns)
    holder, _, name = path.rpartition(".")
    module = model.get_submodule(holder)
    table = getattr(module, name)
    new = interpolated(table.detach(), old, (size[0] // rows, size[1] // columns), prefix=prefix, antialias=antialias)
    setattr(module, name, nn.Parameter(new, requires_grad=table.requires_grad))


@contextmanager
def at_input_size(model: nn.Module, adapter: ModelAdapter, size: tuple[int, int]) -> Iterator[None]:
    """Let a model take images of another size for a while; its own position embeddings are untouched afterwards.

    Args:
        model: changed in place until the block ends; its interpolated embeddings have no gradient.
        adapter: of the model.
        size: height and width in pixels.

    Raises:
        UnsupportedModelError: the family has a fixed input size, or the patch does not divide ``size``.
    """
    own = adapter.layout(model).image_size
    if own == size:
        yield
        return
    before = dict(model.named_parameters())
    adapter.resize(model, *size)
    replaced = [name for name, parameter in model.named_parameters() if parameter is not before.get(name)]
    for name in replaced:
        model.get_parameter(name).requires_grad_(False)
    try:
        yield
    finally:
        adapter.resize(model, *own)
        for name in replaced:
            holder, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(holder), attribute, before[name])
