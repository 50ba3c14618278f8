"""``model.xml`` and ``model.bin``: OpenVINO's form, made from ONNX, run by OpenVINO."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pah_opt.errors import ExportError
from pah_opt.export import onnx_file
from pah_opt.export.lowering import int8_layers
from pah_opt.export.quiet import quiet
from pah_opt.export.tracing import first_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pah_opt.export.subject import Subject

FILE = "model.xml"
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}
"""OpenVINO's default is bfloat16 on CPUs that have it; agreement is checked without that rounding on top."""


def write(subject: Subject, folder: Path) -> dict[str, Any]:
    """Write both files, and return what the manifest says of them.

    Raises:
        ExportError: the model cannot be traced, converted or written.
    """
    import openvino

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as beside:
        # OpenVINO turns a MatMulInteger's weight into float32. It rounds the tokens before an int8 weight by itself.
        facts = onnx_file.write(subject, Path(beside), rounding="fixed")
        try:
            with quiet():
                model = openvino.convert_model(str(Path(beside, onnx_file.FILE)))
                openvino.save_model(model, str(folder / FILE), compress_to_fp16=False)
        except Exception as error:  # its errors have no common base
            raise ExportError(f"OpenVINO cannot convert the model: {first_line(error)}") from error
        counts = Counter(operation.get_type_name() for operation in model.get_ops())
    integers = {"int8 constants": _int8_constants(model), "FakeQuantize": counts["FakeQuantize"]}
    return {
        "opset": facts["opset"],
        "operators": {name: count for name, count in integers.items() if count},
        "settings": SETTINGS,
        "notes": facts["notes"] + _notes(subject),
    }


def _notes(subject: Subject) -> list[str]:
    dynamic = any(layer.weight.act_quant_kwargs is not None and layer.weight.act_quant_scale is None
                  for _, layer in int8_layers(subject.model))  # fmt: skip
    return ["tokens are rounded to int8 as OpenVINO decides (DYNAMIC_QUANTIZATION_GROUP_SIZE)"] if dynamic else []


def _int8_constants(model: Any) -> int:
    constants = (op for op in model.get_ops() if op.get_type_name() == "Constant" and len(op.get_output_shape(0)) > 1)
    return sum(op.get_output_element_type(0).get_type_name() in {"i8", "u8"} for op in constants)


def runner(folder: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a function from pixels to logits that OpenVINO computes on the CPU."""
    import openvino

    compiled = openvino.Core().compile_model(str(folder / FILE), "CPU", SETTINGS)

    def run(pixels: NDArray[Any]) -> NDArray[Any]:
        logits: NDArray[Any] = compiled(pixels)[0].copy()  # the next call overwrites it
        return logits

    return run
