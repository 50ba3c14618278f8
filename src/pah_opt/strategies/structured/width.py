"""Narrow the embedding: every layer that writes the residual stream or reads it, and every parameter added to it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pah_opt.errors import RecipeError
from pah_opt.models.calibration import collect_inputs_covariance
from pah_opt.models.surgery import keep_columns
from pah_opt.strategies.structured.config import FROM_GRADIENTS
from pah_opt.strategies.structured.gradients import gate_gradients
from pah_opt.strategies.structured.graph import PruningGraph, as_indices
from pah_opt.strategies.structured.readers import Refit, readers_of
from pah_opt.strategies.structured.scores import hessian, taylor, uniform_random
from pah_opt.strategies.structured.stream import loose_parameters, stream_layers
from pah_opt.strategies.structured.targets import nearest, shares_by_width
from pah_opt.strategies.structured.weights import linear, mean_problems

if TYPE_CHECKING:
    from pah_opt.layout import Layout
    from pah_opt.optimizer import Context
    from pah_opt.strategies.structured.config import WidthConfig


def narrow(model: nn.Module, config: WidthConfig, context: Context) -> nn.Module:
    """Cut the embedding of ``model`` in place and return it.

    Raises:
        RecipeError: a target cannot be reached.
        DataError: calibration images cannot be used.
        UnsupportedModelError: torch-pruning's graph does not agree with the Layout on what the embedding runs through.
    """
    layout = context.adapter.layout(model)
    seen = context.calibration_count > 0
    importance = ("activation" if seen else "magnitude") if config.importance == "auto" else config.importance
    repair = ("least-squares" if seen else "none") if config.repair == "auto" else config.repair
    width = kept_width(model, layout, config, context)
    if config.target is not None:
        figure = config.target.figure
        context.record("kept", {figure: round(shares_by_width(model, layout, figure, [width])[width], 4)})
    kept = (
        torch.arange(width, device="cpu")
        if context.planning
        else _chosen(model, layout, importance, width, config, context)
    )
    # Reads and checks every calibration image before the cut.
    refit = (
        Refit(copy.deepcopy(model), context, config.batch_size) if repair != "none" and not context.planning else None
    )
    cut_embedding(model, layout, kept, context)
    context.adapter.sync(model)
    if refit is not None:
        refit.apply(model, least_squares=repair == "least-squares")
    context.record("hidden_size", width)
    context.record("requested", {"ratio": config.ratio} if config.target is None else config.target.given)
    context.record("removed", round(1 - width / layout.hidden_size, 4))
    context.record("importance", importance)
    context.record("repair", repair)
    return model


def problems(model: nn.Module, config: WidthConfig, context: Context) -> list[str]:
    """Return why the embedding of this model cannot be cut so."""
    layout = context.adapter.layout(model)
    hidden = layout.hidden_size
    if not layout.num_classes:
        return ["a bare backbone returns its embedding, whose width would change; give the model a classifier first"]
    try:
        width = kept_width(model, layout, config, context)
    except RecipeError as error:
        return [problem.message for problem in error.problems]
    if 0 < width < hidden:
        readers = [path for block in layout.blocks for paths in readers_of(block).values() for path in paths]
        return mean_problems(model, config.repair, readers)
    message = (
        f"ratio: {config.ratio} leaves {width} of the {hidden} channels, since the width must be a multiple of "
        f"{_align(config, context)}; what stays must be at least one multiple and less than all: choose another ratio "
        "or a smaller align"
    )
    return [message]


def kept_width(model: nn.Module, layout: Layout, config: WidthConfig, context: Context) -> int:
    """Return the multiple of the alignment nearest to what the ratio or the target leaves, but never all of it.

    Raises:
        RecipeError: no such width meets the target within 2 %.
    """
    align, hidden = _align(config, context), layout.hidden_size
    if config.target is not None:
        shares = shares_by_width(model, layout, config.target.figure, range(align, hidden, align))
        return nearest(config.target, shares, lambda width: f"{width} of {hidden} channels")
    wanted = hidden * (1.0 - (config.ratio or 0.0))
    rounded = align * int(wanted / align + 0.5)
    return rounded if rounded < hidden else (hidden - 1) // align * align


def _align(config: WidthConfig, context: Context) -> int:
    return context.align if config.align is None else config.align


def cut_embedding(model: nn.Module, layout: Layout, kept: Tensor, context: Context) -> None:
    """Keep only these channels of the embedding, in place.

    Args:
        model: any device, ``meta`` too.
        layout: of ``model``.
        kept: ascending channel indices, ``(k,)``.
        context: the adapter.

    Raises:
        UnsupportedModelError: the graph misses a layer that the Layout names.
    """
    hidden = layout.hidden_size
    removed = as_indices(kept, hidden)
    loose = list(loose_parameters(model, hidden))
    graph = PruningGraph(model, context.adapter, layout, [(parameter, parameter.ndim - 1) for _, parameter in loose])
    # torch-pruning cuts only the first copy of the embedding that a classifier reads, and may shuffle a norm.
    own = {path for path, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    cut = graph.cut_stream(layout.patch_embedding, removed, stream_layers(layout), own | set(layout.classifiers))
    for path in sorted(own & cut):
        _keep_norm(model.get_submodule(path), kept)
    for path in layout.classifiers:
        layer = linear(model, path)
        # A head may read several copies of the embedding side by side (DINOv2: class token and mean of the patches).
        copies = torch.arange(layer.in_features // hidden, device="cpu")[:, None] * hidden
        keep_columns(layer, (copies + kept).flatten())
    for name, _ in loose:
        _keep_parameter(model, name, hidden, kept)


def _keep_norm(norm: nn.Module, kept: Tensor) -> None:
    for name, parameter in list(norm.named_parameters(recurse=False)):
        setattr(norm, name, _kept(parameter, kept))
    setattr(norm, "normalized_shape", (len(kept),))  # noqa: B010  # typed as a Module


def _keep_parameter(model: nn.Module, name: str, hidden: int, kept: Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    module = model.get_submodule(owner)
    parameter = getattr(module, attribute)
    if parameter.shape[-1] == hidden:  # a token that the forward pass leaves out is not in the graph
        setattr(module, attribute, _kept(parameter, kept))


def _kept(parameter: nn.Parameter, kept: Tensor) -> nn.Parameter:
    values = parameter.detach().index_select(-1, kept.to(parameter.device))
    return nn.Parameter(values, requires_grad=parameter.requires_grad)


@torch.no_grad()
def _chosen(
    model: nn.Module, layout: Layout, importance: str, width: int, config: WidthConfig, context: Context
) -> Tensor:
    """Return the channels to keep, ascending, on the CPU wherever the scores were made."""
    if importance == "random":
        score = uniform_random(layout.hidden_size, torch.Generator().manual_seed(context.seed))
    elif importance == "activation":
        score = _carried(model, layout, config, context)
    elif importance in FROM_GRADIENTS:
        score = _felt_by_the_loss(model, layout, importance, config, context)
    else:
        score = _written_and_read(model, layout, 1 if importance == "l1" else 2)
    return score.topk(width).indices.sort().values.cpu()


def _written_and_read(model: nn.Module, layout: Layout, p: int) -> Tensor:
    """Return for each channel the share it has of the weights of every layer, averaged over layers."""
    total = torch.zeros(layout.hidden_size, dtype=torch.float32, device="cpu")
    for path, side in stream_layers(layout).items():
        weight: Tensor = model.get_submodule(path).get_parameter("weight").detach().flatten(1)
        score = weight.float().abs().pow(p).sum(dim=1 if side == "out" else 0).cpu()
        total += score / score.mean().clamp_min(torch.finfo(score.dtype).tiny)
    return total


def _felt_by_the_loss(
    model: nn.Module, layout: Layout, importance: str, config: WidthConfig, context: Context
) -> Tensor:
    """Return the change of the loss when all layers that read the embedding no longer see a channel."""
    units = {path: 1 for block in layout.blocks for path in readers_of(block)}
    gates = gate_gradients(
        model, context.adapter, layout, context.calibration, units, batch_size=config.batch_size
    )  # fmt: skip
    together = torch.stack(list(gates.values())).sum(dim=0)
    return taylor(together) if importance == "taylor" else hessian(together)


def _carried(model: nn.Module, layout: Layout, config: WidthConfig, context: Context) -> Tensor:
    """Return for each channel the energy that every reader takes from it on calibration images, as shares."""
    readers = [path for block in layout.blocks for path in readers_of(block)]
    seen = collect_inputs_covariance(
        model, layout, readers, context.calibration, batch_size=config.batch_size, progress=context.progress
    )
    total = torch.zeros(layout.hidden_size, dtype=torch.float64, device="cpu")
    for block in layout.blocks:
        for leader, paths in readers_of(block).items():
            weights = torch.cat([linear(model, path).weight.detach() for path in paths]).to(seen[leader].mean.dtype)
            energy = (seen[leader].second_moment.diagonal() * weights.square().sum(dim=0)).cpu()
            total += energy / energy.mean()
    return total
