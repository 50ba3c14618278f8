"""``model.pt2``: a program of ATen operators, written and loaded by ``torch.export``."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import torch

from pah_opt.export.quiet import quiet
from pah_opt.export.tracing import classifier_of, program_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from pah_opt.export.subject import Subject

FILE = "model.pt2"
_SMALL = (torch.int8, torch.uint8, torch.float8_e4m3fn)


def write(subject: Subject, folder: Path) -> dict[str, Any]:
    """Write the file, and return what the manifest says of it.

    Raises:
        ExportError: the model cannot be traced.
    """
    program = program_of(classifier_of(subject, "torch"), subject)
    counts = integer_products(program)
    program.example_inputs = None  # they would be written with pickle
    packed = io.BytesIO()  # torch's own writer ends the whole process where the disk is full
    with quiet():
        torch.export.save(program, packed)
    (folder / FILE).write_bytes(packed.getbuffer())
    return {"operators": counts}


def integer_products(program: torch.export.ExportedProgram) -> dict[str, int]:
    """Count the integer products of a program, and its matrices of one byte a value or less."""
    products = sum("_int_mm" in str(node.target) for node in program.graph.nodes)
    weights = sum(tensor.dtype in _SMALL and tensor.ndim > 1 for tensor in program.state_dict.values())
    counts = {"_int_mm": products, "small matrices": weights}
    return {name: count for name, count in counts.items() if count}


def runner(folder: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a function from pixels to logits that the loaded program computes."""
    with quiet():
        module = torch.export.load(folder / FILE).module()
    return torch_runner(module)


def torch_runner(module: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a function of arrays for one of tensors."""

    def run(pixels: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad(), quiet():
            return module(torch.from_numpy(pixels)).numpy()

    return run
