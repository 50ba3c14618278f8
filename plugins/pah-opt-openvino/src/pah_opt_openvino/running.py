"""Compiled models of OpenVINO behind a model's call."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import openvino

from pah_opt.errors import ArtifactError
from pah_opt.models import find_adapter
from pah_opt.models.engine import answers_with_mapping, kept_graph, take_over
from pah_opt.registry import default_registry
from pah_opt_openvino.exporting import export_openvino

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from pah_opt import Context

ENGINE = "OpenVINO"
FIXED_SHAPES = 4
"""Shapes of input that get a graph of their own; each holds the weights once more."""
_LENGTH_BYTES = 8


def core() -> Any:
    """Return OpenVINO, reading files into memory: they are gone before the model is."""
    made = openvino.Core()
    made.set_property({"ENABLE_MMAP": False})
    return made


class Runner:
    """Pixels to logits in OpenVINO, any batch size.

    A graph whose sizes are fixed runs up to a tenth faster than one that takes any (it plans its memory and chooses its
    kernels once), so the first :data:`FIXED_SHAPES` shapes of input that are seen each get one, compiled at their first
    call; whatever comes after them shares one for any size.

    Args:
        graph: a model that OpenVINO read.
        threads: to compute with; None for OpenVINO's own choice.
    """

    def __init__(self, graph: Any, threads: int | None) -> None:
        self._graph = graph
        # Its default is bfloat16 on CPUs that have it, which rounds once more.
        self._settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self.compiled: dict[tuple[int, ...] | None, Any] = {}
        """By shape of the input; under None the one for any size."""

    def __call__(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return logits, ``(batch, classes)``, of pixels ``(batch, channels, height, width)``."""
        logits: NDArray[Any] = self._for(pixels.shape)(pixels)[0].copy()  # the next call overwrites it
        return logits

    def _for(self, shape: tuple[int, ...]) -> Any:
        key = shape if shape in self.compiled or len(self.compiled) < FIXED_SHAPES else None
        if key not in self.compiled:
            graph = self._graph
            if key is not None:
                graph = graph.clone()
                graph.reshape(list(shape))
            self.compiled[key] = core().compile_model(graph, "CPU", self._settings)
        return self.compiled[key]


def packed(graph: Any) -> bytes:
    """Return a model as one piece: the length of its description, the description, the weights."""
    # OpenVINO numbers what has no name through the life of a process: the same model would be another file each time.
    for number, operation in enumerate(graph.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    with TemporaryDirectory() as folder:
        description = Path(folder, "model.xml")
        openvino.serialize(graph, str(description), str(description.with_suffix(".bin")))
        text, weights = description.read_bytes(), description.with_suffix(".bin").read_bytes()
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + weights


def unpacked(data: bytes) -> Any:
    """Read what :func:`packed` made.

    Raises:
        ArtifactError: it is damaged.
    """
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    if not _LENGTH_BYTES < end <= len(data):
        raise ArtifactError("the graph that is kept for OpenVINO is damaged: copy or download the artifact again")
    with TemporaryDirectory() as folder:
        description = Path(folder, "model.xml")
        description.write_bytes(data[_LENGTH_BYTES:end])
        description.with_suffix(".bin").write_bytes(data[end:])
        return core().read_model(str(description))


def run_exported(model: nn.Module, threads: int | None, context: Context) -> nn.Module:
    """Export ``model`` and have calls of it run in OpenVINO."""
    mapping = answers_with_mapping(model, context.adapter)
    run = _exported(model, context.adapter.name, threads)
    context.record("engine", f"openvino {openvino.__version__}")
    return take_over(model, ENGINE, run, mapping=mapping)


def _exported(model: nn.Module, adapter: str, threads: int | None) -> Callable[[NDArray[Any]], NDArray[Any]]:
    with TemporaryDirectory() as folder:
        path = export_openvino(model, adapter, Path(folder, "openvino"), "openvino")
        return Runner(core().read_model(str(path)), threads)


def run_again(model: nn.Module, state: dict[str, Any]) -> nn.Module:
    """Export a loaded model again and run it."""
    adapter = find_adapter(model, default_registry().adapters)
    return take_over(model, ENGINE, _exported(model, adapter.name, state["threads"]), mapping=state["mapping"])


def run_kept(model: nn.Module, state: dict[str, Any]) -> nn.Module:
    """Run the graph that a loaded model holds."""
    run = Runner(unpacked(kept_graph(model)), state["threads"])
    return take_over(model, ENGINE, run, mapping=state["mapping"])
