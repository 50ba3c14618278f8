"""An artifact in the form of another runtime: ONNX, OpenVINO, torch.export, AOTInductor, plain transformers; Triton.

The package can be called: ``pah_opt.export(artifact, to="onnx", out=...)`` writes one form and proves that it answers
as the artifact does; ``pah_opt.export.check(artifact, "onnx")`` says beforehand what stands in the way.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from os import PathLike

    from pah_opt.artifact import Artifact
    from pah_opt.export.exporting import Exported, export_all
    from pah_opt.export.manifest import ExportManifest, read_export
    from pah_opt.export.problems import check
    from pah_opt.export.targets import TARGETS, Target

_HOMES = {
    "ExportManifest": "manifest",
    "Exported": "exporting",
    "TARGETS": "targets",
    "Target": "targets",
    "check": "problems",
    "export_all": "exporting",
    "read_export": "manifest",
}

__all__ = ["TARGETS", "ExportManifest", "Exported", "Target", "check", "export_all", "read_export"]


class _CallablePackage(types.ModuleType):
    """This package, which is also the function that a user expects under its name."""

    def __call__(
        self, artifact: Artifact | str | PathLike[str], to: str, out: str | PathLike[str] | None = None, **options: Any
    ) -> Exported:
        """Export an artifact; see :func:`pah_opt.export.exporting.export`."""
        from pah_opt.export.exporting import export

        return export(artifact, to, out, **options)


sys.modules[__name__].__class__ = _CallablePackage


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pah_opt.export' has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(importlib.import_module(f"pah_opt.export.{_HOMES[name]}"), name)
