"""From a model in a running recipe to OpenVINO's files, by the library's own export."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pah_opt
from pah_opt.artifact import Artifact
from pah_opt.export import check

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from pah_opt.layout import ModelAdapter

FILE = "model.xml"


def export_problems(model: nn.Module, adapter: ModelAdapter, step: str) -> list[str]:
    """Return what keeps a model from being brought into OpenVINO; it may be on the meta device."""
    return [str(problem) for problem in check(_artifact(model, adapter.name, step), "openvino")]


def export_openvino(model: nn.Module, adapter: str, folder: Path, step: str) -> Path:
    """Write a model in the form of OpenVINO, compared with it at several batch sizes.

    Args:
        model: in ``eval`` mode.
        adapter: name of its ModelAdapter.
        folder: where to; made.
        step: the strategy that asks.

    Returns:
        The file; its weights lie beside it.

    Raises:
        ExportError: the model cannot be traced, or answers differently in OpenVINO.
    """
    pah_opt.export(_artifact(model, adapter, step), "openvino", folder)
    return folder / FILE


def _artifact(model: nn.Module, adapter: str, step: str) -> Artifact:
    return Artifact(model=model, recipe=pah_opt.Recipe(steps=(pah_opt.Step.of(step),)), steps=(), adapter=adapter)
