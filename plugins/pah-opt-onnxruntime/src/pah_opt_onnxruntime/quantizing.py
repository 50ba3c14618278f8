"""Static int8 by ONNX Runtime's own tool: which products, and the images that ranges are taken from."""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from pah_opt.errors import UnsupportedModelError
from pah_opt.models.calibration import calibration_batches, evenly_spaced
from pah_opt.models.engine import answers_with_mapping, keep_graph, take_over
from pah_opt_onnxruntime.exporting import export_onnx
from pah_opt_onnxruntime.running import ENGINE, INPUT, OUTPUT, session_runner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from pah_opt import Context
    from pah_opt_onnxruntime.strategy import OnnxRuntimeInt8Config

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
PRODUCTS = ("MatMul", "Gemm")

NOTE = (
    "the graph is what runs, and graph_bytes its size; a saved artifact keeps the float weights beside it, which the "
    "layout is read from and copies of the model run with"
)
"""Said with every result, because the file is larger than the dense one."""


class Images(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime publishes no types
    """Hands calibration images over, batch by batch.

    With a length and ranges, what was seen is put together after each batch: histograms of batches of unequal size
    cannot be made at once, and all activations of all images would be held until the end.
    """

    def __init__(self, batches: Iterator[Tensor], count: int) -> None:
        self._batches, self._count, self._left = batches, count, count

    def __len__(self) -> int:
        """Return the number of batches."""
        return self._count

    def set_range(self, start_index: int, end_index: int) -> None:
        """Hand over so many batches before the next pause."""
        self._left = end_index - start_index

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or None after the last or before a pause."""
        self._left -= 1
        batch = next(self._batches, None) if self._left >= 0 else None
        return None if batch is None else {INPUT: batch.float().numpy()}


def run_quantized(model: nn.Module, config: OnnxRuntimeInt8Config, context: Context) -> nn.Module:
    """Export ``model``, quantize the graph, keep it with the model, and have calls of it run there."""
    mapping = answers_with_mapping(model, context.adapter)
    with TemporaryDirectory() as folder:
        path = export_onnx(model, context.adapter.name, Path(folder, "onnx"), "onnxruntime-int8")
        graph = _quantized(path, Path(folder, "int8.onnx"), model, config, context)
    keep_graph(model, graph)
    context.record("graph_bytes", len(graph))
    context.record("note", NOTE)
    context.record("engine", f"onnxruntime {onnxruntime.__version__}")
    return take_over(model, ENGINE, session_runner(graph, config.threads), mapping=mapping)


def _quantized(path: Path, target: Path, model: nn.Module, config: OnnxRuntimeInt8Config, context: Context) -> bytes:
    nodes = linear_products(onnx.load(str(path)).graph)
    split = context.calibration and evenly_spaced(context.calibration, config.images)
    like = torch.empty(0, device="cpu")  # the engine takes float32 there, wherever and whatever the model is
    count = math.ceil(len(split or ()) / config.batch_size)
    batches = calibration_batches(split, context.adapter.layout(model), config.batch_size, like)
    with _quiet():
        quantize_static(
            str(path), str(target), Images(batches, count), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=list(PRODUCTS),
            nodes_to_quantize=nodes, calibrate_method=METHODS[config.calibration],
            extra_options={"CalibStridedMinMax": 1},
        )  # fmt: skip
    context.record("quantized_layers", len(nodes))
    return target.read_bytes()


def linear_products(graph: Any) -> list[str]:
    """Return names of the nodes that multiply with a stored weight, the classifiers left out.

    Raises:
        UnsupportedModelError: there are none.
    """
    stored = {tensor.name for tensor in graph.initializer}
    last = _classifiers(graph)
    found = [
        node.name
        for node in graph.node
        if node.op_type in PRODUCTS and node.input[1] in stored and node.name not in last
    ]
    if not found:
        raise UnsupportedModelError("the exported graph multiplies with no stored weights; use the onnxruntime step")
    return found


def _classifiers(graph: Any) -> set[str]:
    """Return the products that logits come from directly: walk back from the output until the first on each way."""
    makers = {output: node for node in graph.node for output in node.output}
    waiting, found = [OUTPUT], set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None:
            continue
        if node.op_type in PRODUCTS:
            found.add(node.name)
        else:
            waiting += node.input
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tool's advice about preparing models out of the log: the exporter has prepared this one."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
