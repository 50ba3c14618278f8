"""2:4 sparse linear layers, stored in the format of NVIDIA's sparse tensor cores where there are any."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pah_opt.environment import Environment
from pah_opt.errors import UnsupportedHardwareError
from pah_opt.strategies.unstructured.config import KERNEL_TILE
from pah_opt.strategies.unstructured.importance import wanda_scores
from pah_opt.strategies.unstructured.prune import magnitude, prune
from pah_opt.strategies.unstructured.record import record_zeros, zeros_of
from pah_opt.strategies.unstructured.sparsegpt import sparsegpt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pah_opt.optimizer import Context
    from pah_opt.strategies.unstructured.config import SemiStructuredConfig

CAPABILITY = (8, 0)
"""Sparse tensor cores came with Ampere."""
DTYPES = (torch.float16, torch.bfloat16)
"""The types that the kernels multiply in; int8 weights are made by quantization, not here."""
ROWS, COLUMNS = KERNEL_TILE


def make_semi_structured(
    model: nn.Module, layers: Mapping[str, nn.Linear], config: SemiStructuredConfig, context: Context
) -> None:
    """Make ``layers`` 2:4 sparse in place, report the zeros, and store them for sparse kernels as the config says.

    Raises:
        UnsupportedHardwareError: kernels are required and cannot run here; nothing has been changed by then.
    """
    obstacle = _obstacle(layers, config, context.environment)
    if obstacle and config.kernels == "require":
        raise UnsupportedHardwareError(f"sparse kernels cannot run: {obstacle}; or use kernels: pattern")
    before = zeros_of(layers)
    _make_zeros(model, layers, config, context)
    record_zeros(context, model, layers, before, config.pruning.zeros)
    packed = [] if obstacle else pack(layers)
    _report(context, layers, packed, obstacle)


def _make_zeros(
    model: nn.Module, layers: Mapping[str, nn.Linear], config: SemiStructuredConfig, context: Context
) -> None:
    pruning = config.pruning
    if config.method == "sparsegpt":
        sparsegpt(model, layers, pruning, context)
        return
    observed = config.method == "wanda"
    score = wanda_scores(model, layers, pruning, context) if observed else magnitude(layers)
    prune(layers, score, pruning.zeros, "layer", context.adapter.layout(model), pruning.nm)


def _obstacle(layers: Mapping[str, nn.Linear], config: SemiStructuredConfig, environment: Environment) -> str | None:
    if config.kernels == "pattern":
        return "the recipe asks for the pattern only"
    return obstacle_to_kernels(next(iter(layers.values())).weight, environment)


def _report(context: Context, layers: Mapping[str, nn.Linear], packed: list[str], obstacle: str | None) -> None:
    context.record(
        "kernels", f"sparse tensor cores in {len(packed)} layers" if packed else "none: the 2:4 pattern only"
    )
    if obstacle:
        context.record("kernels_reason", obstacle)
        return
    context.record("note", "layers in the sparse format take 9/16 of the memory and multiply on sparse tensor cores")
    unfit = misfits(layers)
    if unfit:
        context.record("left_dense", dict.fromkeys(unfit, f"shape is not a multiple of {ROWS} x {COLUMNS}"))


def obstacle_to_kernels(weight: Tensor, environment: Environment) -> str | None:
    """Return why the kernels cannot run with a weight of this device and type on this machine, or None."""
    if not environment.has_cuda or weight.device.type != "cuda":
        return f"the model is on {weight.device.type}, and they need a CUDA device"
    capability = environment.compute_capability or (0, 0)
    if capability < CAPABILITY:
        return f"this device has compute capability {'.'.join(map(str, capability))}, and they need 8.0 or newer"
    return dtype_obstacle(weight)


def dtype_obstacle(weight: Tensor) -> str | None:
    """Return why the kernels cannot multiply in the type of this weight, or None."""
    if weight.dtype in DTYPES:
        return None
    kind = str(weight.dtype).removeprefix("torch.")
    return f"weights are {kind}, and they need float16 or bfloat16: cast the model in a step before this one"


def misfits(layers: Mapping[str, nn.Linear]) -> list[str]:
    """Return the layers whose shape the kernels cannot take."""
    return [path for path, layer in layers.items() if layer.out_features % ROWS or layer.in_features % COLUMNS]


def kernel_problems(layers: Mapping[str, nn.Linear]) -> list[str]:
    """Return what keeps required kernels from these layers, whatever the machine."""
    obstacle = dtype_obstacle(next(iter(layers.values())).weight)
    problems = [f"kernels are required: {obstacle}"] if obstacle else []
    if len(misfits(layers)) == len(layers):
        problems.append(
            f"kernels are required, and no chosen layer has a shape in multiples of {ROWS} x {COLUMNS}; "
            "choose larger layers, or use kernels: pattern"
        )
    return problems


def pack(layers: Mapping[str, nn.Linear]) -> list[str]:
    """Store the weights of 2:4 sparse layers in the sparse format, in place; return the paths of those that fit."""
    unfit = set(misfits(layers))
    packed = [path for path in layers if path not in unfit]
    with warnings.catch_warnings():
        # torch calls this interface a prototype, once a process; the tested versions of torch are pinned.
        warnings.filterwarnings("ignore", message="The PyTorch API of SparseSemiStructuredTensor", category=UserWarning)
        for path in packed:
            dense = layers[path].weight.detach().contiguous()
            layers[path].weight = nn.Parameter(torch.sparse.to_sparse_semi_structured(dense), requires_grad=False)
    return packed


def packed_layers(model: nn.Module) -> list[str]:
    """Return the paths of the linear layers that are stored in the sparse format."""
    linears = ((path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear))
    return [path for path, module in linears if isinstance(module.weight, torch.sparse.SparseSemiStructuredTensor)]


def pack_again(model: nn.Module, paths: Iterable[str], environment: Environment | None = None) -> list[str]:
    """Store these layers of a loaded model in the sparse format where the kernels can run; return which were."""
    layers = {path: module for path in paths if isinstance(module := model.get_submodule(path), nn.Linear)}
    ready = not layers or obstacle_to_kernels(next(iter(layers.values())).weight, environment or Environment()) is None
    return pack(layers) if layers and ready else []
