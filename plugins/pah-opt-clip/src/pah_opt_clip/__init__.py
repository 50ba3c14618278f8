"""CLIP's vision tower for pah_opt, and the expected calibration error in its reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.layout import ModelAdapter
    from pah_opt.metric import Metric

__all__ = ["pah_opt_metrics", "pah_opt_model_adapters"]

pah_opt_api_version = 1


@hookimpl
def pah_opt_model_adapters() -> Iterable[ModelAdapter]:
    """Return the adapter of ``CLIPForImageClassification``."""
    from pah_opt_clip.adapter import ClipVision

    return (ClipVision(),)


@hookimpl
def pah_opt_metrics() -> Iterable[Metric]:
    """Return the calibration error."""
    from pah_opt_clip.calibration import ExpectedCalibrationError

    return (ExpectedCalibrationError(),)
