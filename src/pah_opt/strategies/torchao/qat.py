"""Train with rounding in the loop, so that weights settle where rounding hurts least; then give plain layers back.

References:
    Jacob et al., Quantization and Training of Neural Networks, https://arxiv.org/abs/1712.05877.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from pah_opt.adapt import fit
from pah_opt.errors import DataError
from pah_opt.models.zeros import zeroed_linears
from pah_opt.strategies.torchao import backend
from pah_opt.strategies.torchao.convert import overflows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from torch import nn

    from pah_opt.adapt import TrainResult, TrainSettings
    from pah_opt.optimizer import Context


@contextmanager
def rounding_in_the_loop(model: nn.Module, paths: Collection[str]) -> Iterator[None]:
    """Round inputs (each token) and weights (each row) of the layers at ``paths`` to int8 in every forward pass.

    On CPUs whose int8 products overflow, weights use half the range, as they will after the conversion.
    Gradients pass through the rounding. Afterwards the layers are plain linear ones again, with the weights as
    trained.
    """
    ao, qat = backend.load("torchao.quantization"), backend.load("torchao.quantization.qat")
    backend.load("torchao.prototype.qat")  # imported by the conversion otherwise, and not quietly
    wanted = frozenset(paths)

    def change(config: Any) -> None:
        ao.quantize_(model, config, filter_fn=lambda _, path: path in wanted)

    # torchao cannot infer this from Int8DynamicActivationInt8WeightConfig, and knows tokens with a zero point only.
    tokens = qat.IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
    half = overflows(next(model.parameters()).device)
    kind = torch.int7 if half else torch.int8  # type: ignore[attr-defined]  # the stubs lack the small types
    rows = qat.IntxFakeQuantizeConfig(kind, "per_channel", is_symmetric=True)
    change(qat.QATConfig(activation_config=tokens, weight_config=rows, step="prepare"))
    try:
        yield
    finally:
        change(qat.QATConfig(step="convert"))


def train(model: nn.Module, paths: Collection[str], settings: TrainSettings, context: Context) -> TrainResult:
    """Train a model with rounding in the loop of some layers.

    Raises:
        DataError: there are no training images, or they do not fit.
    """
    if context.training is None:
        raise DataError("int8-qat trains, and there are no training images; pass data with training images")
    zeroed = zeroed_linears(model, [block.path for block in context.adapter.layout(model).blocks])
    with rounding_in_the_loop(model, paths):
        return fit(
            model, context.training, settings, adapter=context.adapter, teacher=context.reference,
            keep_zeros=zeroed, progress=context.progress, seed=context.seed,
        )  # fmt: skip
