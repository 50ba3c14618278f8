"""Describe the tensors of a model as data, and give a template of the same family those shapes and types."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.errors import ArtifactError
from pah_opt.models.adapters.facts import Fact
from pah_opt.models.adapters.reading import linear_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pah_opt.layout import Block

Shapes = dict[str, list[int] | None]


def logical_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape that each parameter stands for, by name; packed weights count as the dense ones they replace."""
    found: dict[str, tuple[int, ...]] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            whole = f"{path}.{name}" if path else name
            is_weight = name == "weight" and hasattr(module, "in_features")
            found[whole] = linear_shape(module, path) if is_weight else tuple(parameter.shape)
    return found


def shape_differences(model: nn.Module, template: nn.Module) -> Shapes:
    """Return the shapes in which ``model`` differs from ``template``; None for a parameter it lacks."""
    ours, theirs = logical_shapes(model), logical_shapes(template)
    differing: Shapes = {name: list(shape) for name, shape in ours.items() if theirs.get(name) != shape}
    return differing | {name: None for name in theirs if name not in ours}


def block_shapes(model: nn.Module, block: Block, data: dict[str, Any]) -> Shapes:
    """Return the shapes that the linear layers of a block have when it is as ``data`` describes it.

    Args:
        model: holds the block; its hidden size and biases stay as they are.
        block: from its layout.
        data: ``num_heads``, ``head_dim``, ``value_dim`` and ``mlp_width``.
    """
    attention, mlp, width = block.attention, block.mlp, data["mlp_width"]
    query, value = data["num_heads"] * data["head_dim"], data["num_heads"] * data["value_dim"]
    rows: dict[str | None, int] = {attention.query: query, attention.key: query, attention.value: value}
    if attention.fused:
        rows = {attention.query: 2 * query + value}
    rows |= {mlp.fc1: width, mlp.gate: width}
    shapes: Shapes = {}
    for path, count in rows.items():
        if path is not None:
            layer = model.get_submodule(path)
            shapes[f"{path}.weight"] = [count, linear_shape(layer, path)[1]]
            shapes |= {f"{path}.bias": [count]} if layer.bias is not None else {}
    for path, columns in ((attention.output, value), (mlp.fc2, width)):
        shapes[f"{path}.weight"] = [linear_shape(model.get_submodule(path), path)[0], columns]
    return shapes


def floating_types(model: nn.Module) -> dict[str, Any]:
    """Return the usual floating-point type of plain parameters, and the parameters of another one, as JSON data."""
    plain = [
        (name, p.dtype) for name, p in model.named_parameters() if p.is_floating_point() and type(p.data) is Tensor
    ]
    usual = Counter(dtype for _, dtype in plain).most_common(1)[0][0] if plain else torch.float32
    return {"usual": _name(usual), "others": {name: _name(dtype) for name, dtype in plain if dtype != usual}}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ArtifactError(
            f"{name!r} is no type of torch {torch.__version__}; the structure is damaged or from a newer one"
        )
    return dtype


def apply_shapes(template: nn.Module, shapes: Shapes) -> None:
    """Give parameters of ``template`` other shapes, values not set.

    Raises:
        ArtifactError: a module that ``shapes`` names is not there.
    """
    for name, shape in shapes.items():
        path, _, attribute = name.rpartition(".")
        try:
            module = template.get_submodule(path)
        except AttributeError:
            continue  # a module that a later restore() puts there
        like = next(template.parameters())
        parameter = None if shape is None else nn.Parameter(torch.empty(shape, dtype=like.dtype, device=like.device))
        module.register_parameter(attribute, parameter)


def apply_types(template: nn.Module, types: dict[str, Any]) -> None:
    """Give parameters of ``template`` the floating-point types that :func:`floating_types` described."""
    template.to(_dtype(types["usual"]))
    for name, dtype in types["others"].items():
        path, _, attribute = name.rpartition(".")
        parameter = getattr(template.get_submodule(path), attribute)
        setattr(template.get_submodule(path), attribute, nn.Parameter(parameter.detach().to(_dtype(dtype))))


def module_facts(model: nn.Module) -> Iterator[Fact]:
    """Yield what linear layers, norms and convolutions must state about their own weights."""
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.is_floating_point():
            yield from _module_facts(path, module, tuple(weight.shape))


def _module_facts(path: str, module: nn.Module, shape: tuple[int, ...]) -> Iterator[Fact]:
    if isinstance(module, nn.Linear) and len(shape) == 2:
        yield Fact(module, path, "out_features", shape[0])
        yield Fact(module, path, "in_features", shape[1])
    elif isinstance(module, nn.LayerNorm):
        yield Fact(module, path, "normalized_shape", shape)
    elif isinstance(module, nn.Conv2d):
        yield Fact(module, path, "out_channels", shape[0])
        yield Fact(module, path, "in_channels", shape[1] * module.groups)
