"""``model.onnx``: written by torch's exporter, run by ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from pah_opt.errors import ExportError
from pah_opt.export.quiet import quiet
from pah_opt.export.tracing import INPUT, OUTPUT, classifier_of, first_line, program_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from pah_opt.export.lowering import Rounding
    from pah_opt.export.subject import Subject

OPSET = 18
"""Knows layer normalisation; old enough for every runtime in use, TensorRT 10 among them."""
FILE = "model.onnx"
LARGEST_BYTES = 1_900_000_000
"""One protobuf message ends at 2 GiB; larger weights lie in a file beside it."""
INTEGER_OPERATORS = ("QuantizeLinear", "DequantizeLinear", "MatMulInteger")
NOT_IN_TENSORRT = {"MatMulInteger": "int8-dynamic and int8-qat layers", "DynamicQuantizeLinear": "dynamic layers"}
"""Operators that TensorRT's parser does not have, and where they come from."""


def write(subject: Subject, folder: Path, rounding: Rounding = "own") -> dict[str, Any]:
    """Write the file, and return what the manifest says of it.

    Args:
        subject: what is exported.
        folder: where to.
        rounding: of activations.

    Raises:
        ExportError: the model cannot be traced or written.
    """
    dtype = torch.float32 if subject.dtype == "bf16" else None
    classifier = classifier_of(subject, "onnx", dtype, rounding)
    traced = program_of(classifier, subject)
    try:
        with quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {0: "batch"}},
                verbose=False,
            )
            _without_traces(program.model)
            program.save(folder / FILE, external_data=_bytes(classifier) > LARGEST_BYTES)
    except OSError:
        raise
    except Exception as error:  # the exporter's errors have no common base
        raise ExportError(f"torch.onnx.export cannot write the model: {first_line(error)}") from error
    notes = (
        [] if dtype is None else ["bfloat16 weights are stored and computed in float32: CPUs' kernels have no other"]
    )
    return described(folder / FILE) | {"notes": notes}


def described(path: Path) -> dict[str, Any]:
    """Check a file by ONNX's own rules, and return its opset, integer operators, and what TensorRT would object to.

    Raises:
        ExportError: it breaks the rules.
    """
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the file breaks ONNX's rules: {first_line(error)}") from error
    model = onnx.load(str(path), load_external_data=False)
    counts = Counter(node.op_type for node in model.graph.node)
    return {
        "opset": next(entry.version for entry in model.opset_import if not entry.domain),
        "operators": {name: counts[name] for name in INTEGER_OPERATORS if counts[name]},
        "tensorrt": _tensorrt_problems(model, counts),
    }


def runner(folder: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a function from pixels to logits that ONNX Runtime computes on the CPU, with its usual settings."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(str(folder / FILE), providers=["CPUExecutionProvider"])

    def run(pixels: NDArray[Any]) -> NDArray[Any]:
        logits: NDArray[Any] = session.run([OUTPUT], {INPUT: pixels})[0]
        return logits

    return run


def _without_traces(model: Any) -> None:
    """Drop what the exporter notes of every node: larger than a small model, with paths of this machine's files."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()


def _bytes(module: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def _tensorrt_problems(model: Any, counts: Counter[str]) -> list[str]:
    found = [f"{name} ({whence}) is not known to it" for name, whence in NOT_IN_TENSORRT.items() if counts[name]]
    if _has_zero_points(model):
        found.append("int8-static layers have a zero point, and it takes symmetric scales only")
    return found


def _has_zero_points(model: Any) -> bool:
    from onnx import numpy_helper

    named = {tensor.name: tensor for tensor in model.graph.initializer}
    zeros = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2}
    return any(numpy_helper.to_array(named[name]).any() for name in zeros if name in named)
