"""Sessions of ONNX Runtime behind a model's call."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import onnxruntime

from pah_opt.models import find_adapter
from pah_opt.models.engine import answers_with_mapping, kept_graph, take_over
from pah_opt.registry import default_registry
from pah_opt_onnxruntime.exporting import export_onnx

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from pah_opt import Context

ENGINE = "ONNX Runtime"
INPUT, OUTPUT = "pixel_values", "logits"
_ERRORS_ONLY = 3


def session_runner(graph: str | bytes, threads: int | None) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a function from pixels to logits.

    Args:
        graph: path of an ONNX file, or its content.
        threads: within one operator; None for ONNX Runtime's own choice.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(pixels: NDArray[Any]) -> NDArray[Any]:
        logits: NDArray[Any] = session.run([OUTPUT], {INPUT: pixels})[0]
        return logits

    return run


def run_exported(model: nn.Module, threads: int | None, context: Context) -> nn.Module:
    """Export ``model`` and have calls of it run in ONNX Runtime."""
    mapping = answers_with_mapping(model, context.adapter)
    with TemporaryDirectory() as folder:
        path = export_onnx(model, context.adapter.name, Path(folder, "onnx"), "onnxruntime")
        context.record("graph_bytes", path.stat().st_size)
        run = session_runner(str(path), threads)
    context.record("engine", f"onnxruntime {onnxruntime.__version__}")
    return take_over(model, ENGINE, run, mapping=mapping)


def run_again(model: nn.Module, state: dict[str, Any]) -> nn.Module:
    """Export a loaded model again and run it."""
    adapter = find_adapter(model, default_registry().adapters)
    with TemporaryDirectory() as folder:
        path = export_onnx(model, adapter.name, Path(folder, "onnx"), "onnxruntime")
        run = session_runner(str(path), state["threads"])
    return take_over(model, ENGINE, run, mapping=state["mapping"])


def run_kept(model: nn.Module, state: dict[str, Any]) -> nn.Module:
    """Run the graph that a loaded model holds."""
    return take_over(model, ENGINE, session_runner(kept_graph(model), state["threads"]), mapping=state["mapping"])
