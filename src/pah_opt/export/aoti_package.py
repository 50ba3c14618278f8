"""``model.pt2``: machine code that AOTInductor makes of a program, with its weights."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from pah_opt.errors import ExportError
from pah_opt.export.quiet import quiet
from pah_opt.export.torch_program import integer_products, torch_runner
from pah_opt.export.tracing import classifier_of, first_line, program_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from pah_opt.export.subject import Subject

FILE = "model.pt2"


def write(subject: Subject, folder: Path) -> dict[str, Any]:
    """Compile, write the package, and return what the manifest says of it.

    Raises:
        ExportError: the model cannot be traced or compiled.
    """
    import torch._inductor  # torch itself does not load it

    program = program_of(classifier_of(subject, "torch"), subject)
    counts = integer_products(program)
    packed = io.BytesIO()  # torch's own writer ends the whole process where the disk is full
    try:
        with quiet():
            torch._inductor.aoti_compile_and_package(program, package_path=packed)  # noqa: SLF001  # its documented home
    except OSError:
        raise
    except Exception as error:  # the compiler's errors have no common base
        raise ExportError(f"AOTInductor cannot compile the model: {first_line(error)}") from error
    (folder / FILE).write_bytes(packed.getbuffer())
    return {"operators": counts, "settings": {"cpu_capability": torch.backends.cpu.get_cpu_capability()}}


def runner(folder: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a function from pixels to logits that the loaded package computes."""
    import torch._inductor  # torch itself does not load it

    with quiet():
        package: Any = torch._inductor.aoti_load_package(str(folder / FILE))  # noqa: SLF001  # its documented home
    return torch_runner(package)
