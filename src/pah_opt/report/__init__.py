"""Reports: models measured side by side as one JSON document, and everything that is rendered from it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pah_opt.report.comparison import compare, measure_model
    from pah_opt.report.gates import check_gates, read_limits, require_gates, with_gates
    from pah_opt.report.schema import Curve, Report

_HOMES = {
    "Curve": "pah_opt.report.schema",
    "Report": "pah_opt.report.schema",
    "check_gates": "pah_opt.report.gates",
    "compare": "pah_opt.report.comparison",
    "measure_model": "pah_opt.report.comparison",
    "read_limits": "pah_opt.report.gates",
    "require_gates": "pah_opt.report.gates",
    "with_gates": "pah_opt.report.gates",
}

__all__ = ["Curve", "Report", "check_gates", "compare", "measure_model", "read_limits", "require_gates", "with_gates"]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use: reading and rendering a report needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pah_opt.report' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
