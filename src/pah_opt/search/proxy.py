"""How much a change of layers hurts, in closed form: the error of their outputs on the dense model's inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from pah_opt.models.calibration import watching_inputs
from pah_opt.models.selection import select_linears

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from pah_opt.layout import ModelAdapter
    from pah_opt.splits import Split


@torch.inference_mode()
def output_errors(
    dense: nn.Module, changed: nn.Module, adapter: ModelAdapter, images: Split, patterns: Iterable[str]
) -> dict[str, float]:
    """Return the relative squared error of the linear layers that each pattern names, summed over its layers.

    For weights that change by ``D`` it is ``tr(D C D') / tr(W C W')`` with the second moments ``C`` of the layer's
    inputs, the objective of layer-wise quantization and pruning. It is taken on the inputs themselves, so that layers
    which round their inputs too are judged by what they do. One pass of the dense model serves all layers; what errors
    of several layers do together is not seen.

    Args:
        dense: the model with its own weights; untouched.
        changed: the same layers, all changed, with the same widths.
        adapter: of both.
        images: of the size that ``dense`` takes.
        patterns: globs over module paths, or group names.

    Raises:
        RuntimeError: a layer's width changed.

    References:
        Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, https://arxiv.org/abs/2004.10568
        Frantar and Alistarh, Optimal Brain Compression, https://arxiv.org/abs/2208.11580
    """
    layout = adapter.layout(dense)
    layers = {pattern: select_linears(dense, layout, include=(pattern,)) for pattern in patterns}
    watched = {path: layer for found in layers.values() for path, layer in found.items()}
    sums: dict[str, tuple[Tensor | float, Tensor | float]] = dict.fromkeys(watched, (0.0, 0.0))

    def see(path: str, inputs: Tensor) -> None:
        layer = watched[path]
        wanted = nn.functional.linear(inputs, layer.weight, layer.bias)  # the layer itself would be watched again
        got = changed.get_submodule(path)(inputs)
        error, scale = sums[path]
        sums[path] = (error + (got - wanted).double().square().sum(), scale + wanted.double().square().sum())

    device = next(dense.parameters()).device
    with watching_inputs(watched, see):
        for batch in images.batches(len(images)):
            dense(batch.pixel_values.to(device))
    return {pattern: sum(_share(*sums[path]) for path in found) for pattern, found in layers.items()}


def _share(error: Tensor | float, scale: Tensor | float) -> float:
    return float(error) / float(scale) if float(scale) > 0.0 else 0.0
