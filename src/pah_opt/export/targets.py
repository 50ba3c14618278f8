"""The forms an artifact can be exported in: one table. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pah_opt.environment import Backend
from pah_opt.errors import ExportRefusedError, Problem, nearest_name

if TYPE_CHECKING:
    from collections.abc import Mapping

INSTALL = "pip install 'pah-opt[export]'"
_WRITER = (Backend("onnx", ">=1.18", INSTALL), Backend("onnxscript", ">=0.5", INSTALL))
_ONNX = (*_WRITER, Backend("onnxruntime", ">=1.22", INSTALL))


class Target(NamedTuple):
    """A form that an artifact can take.

    Args:
        name: what ``--to`` takes.
        summary: what it is and where it runs, in a sentence.
        file: the file that is loaded; empty for the folder itself.
        module: writes it and runs it.
        backends: libraries it needs beside torch.
        compiler: whether it needs a C++ compiler.
        storages: types of quantized weights that it keeps, as state tags name them.
        dtypes: floating-point types that it keeps; a model of another type is computed in float32.
        triton: the backend of Triton Inference Server that serves it; empty for none.
    """

    name: str
    summary: str
    file: str
    module: str
    backends: tuple[Backend, ...] = ()
    compiler: bool = False
    storages: frozenset[str] = frozenset()
    dtypes: frozenset[str] = frozenset({"fp32", "fp16", "bf16"})
    triton: str = ""


_TARGETS = (
    Target(
        "onnx", "ONNX, opset 18: ONNX Runtime, TensorRT, Triton, browsers, mobile.", "model.onnx", "onnx_file", _ONNX,
        storages=frozenset({"int8"}), dtypes=frozenset({"fp32", "fp16"}), triton="onnxruntime",
    ),
    Target(
        "openvino", "OpenVINO IR: CPUs, GPUs and NPUs of Intel, and ARM CPUs.", "model.xml", "openvino_file",
        (*_WRITER, Backend("openvino", ">=2025.2", INSTALL)),
        storages=frozenset({"int8"}), dtypes=frozenset({"fp32", "fp16"}), triton="openvino",
    ),
    Target(
        "torch-export", "A torch.export program: any device of torch, without this library, torchao or transformers.",
        "model.pt2", "torch_program", storages=frozenset({"int8", "int4", "fp8"}),
    ),
    Target(
        "aoti", "An AOTInductor package, compiled for this kind of CPU: Python or C++, nothing is compiled at start.",
        "model.pt2", "aoti_package", compiler=True, storages=frozenset({"int8", "int4", "fp8"}),
    ),
    Target(
        "transformers", "A plain transformers checkpoint, for AutoModelForImageClassification.from_pretrained.", "",
        "transformers_folder",
    ),
)  # fmt: skip
TARGETS: Mapping[str, Target] = {target.name: target for target in _TARGETS}
"""Every target by name."""


def target_named(name: str) -> Target:
    """Return a target by name.

    Raises:
        ExportRefusedError: there is none; names the nearest.
    """
    if name in TARGETS:
        return TARGETS[name]
    problem = Problem(f"there is no target {name!r}", allowed=", ".join(TARGETS), nearest=nearest_name(name, TARGETS))
    raise ExportRefusedError([problem], "nothing was exported")
