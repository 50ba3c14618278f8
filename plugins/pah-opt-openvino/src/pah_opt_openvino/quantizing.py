"""Static int8 by NNCF: what it may quantize, and the images that ranges are taken from."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import nncf
import openvino
import torch

from pah_opt.models.calibration import calibration_batches, evenly_spaced
from pah_opt.models.engine import answers_with_mapping, keep_graph, take_over
from pah_opt_openvino.exporting import export_openvino
from pah_opt_openvino.running import ENGINE, Runner, core, packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from pah_opt import Context
    from pah_opt_openvino.strategy import NncfConfig

PRESETS = {"performance": nncf.QuantizationPreset.PERFORMANCE, "mixed": nncf.QuantizationPreset.MIXED}

NOTE = (
    "the graph is what runs, and graph_bytes its size; a saved artifact keeps the float weights beside it, which the "
    "layout is read from and copies of the model run with"
)
"""Said with every result, because the file is larger than the dense one."""


def run_quantized(model: nn.Module, config: NncfConfig, context: Context) -> nn.Module:
    """Export ``model``, quantize the graph, keep it with the model, and have calls of it run there."""
    mapping = answers_with_mapping(model, context.adapter)
    with TemporaryDirectory() as folder:
        path = export_openvino(model, context.adapter.name, Path(folder, "openvino"), "nncf")
        graph = packed(_quantized(core().read_model(str(path)), model, config, context))
    keep_graph(model, graph)
    context.record("graph_bytes", len(graph))
    context.record("note", NOTE)
    context.record("engine", f"openvino {openvino.__version__}, nncf {nncf.__version__}")
    return take_over(model, ENGINE, Runner(unpacked(graph), config.threads), mapping=mapping)


def _quantized(graph: Any, model: nn.Module, config: NncfConfig, context: Context) -> Any:
    split = context.calibration and evenly_spaced(context.calibration, config.images)
    like = torch.empty(0, device="cpu")  # the engine takes float32 there, wherever and whatever the model is
    batches = calibration_batches(split, context.adapter.layout(model), config.batch_size, like)
    images = [batch.float().numpy() for batch in batches]
    with _quiet():
        quantized = nncf.quantize(
            graph, nncf.Dataset(images), preset=PRESETS[config.preset], model_type=nncf.ModelType.TRANSFORMER,
            subset_size=math.ceil(config.images / config.batch_size),
            ignored_scope=nncf.IgnoredScope(names=sorted(classifiers(graph)), validate=False),
        )  # fmt: skip
    rounds = sum(operation.get_type_name() == "FakeQuantize" for operation in quantized.get_ops())
    context.record("rounded_activations", rounds)
    return quantized


def classifiers(graph: Any) -> set[str]:
    """Return the products that logits come from directly: walk back from the output until the first on each way."""
    waiting, found = [graph.output(0).get_node()], set()
    while waiting:
        node = waiting.pop()
        if node.get_type_name() == "MatMul":
            found.add(node.get_friendly_name())
        else:
            waiting += [node.input_value(index).get_node() for index in range(node.get_input_size())]
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's log and progress bars out of a user's terminal."""
    logger = logging.getLogger("nncf")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
