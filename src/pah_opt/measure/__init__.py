"""Standard figures of a model: accuracy, latency, throughput, memory, energy, size and arithmetic.

The package can be called: ``pah_opt.measure(model, data)`` measures one model and returns its report. Its modules are
the parts that this is made of.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pah_opt.report import Report


class _CallablePackage(types.ModuleType):
    """This package, which is also the function that a user expects under its name."""

    def __call__(self, model: Any, data: Any = None, *, name: str = "model", **options: Any) -> Report:
        """Measure one model; see :func:`pah_opt.report.measure_model`."""
        from pah_opt.report import measure_model

        return measure_model(model, data, name=name, **options)


sys.modules[__name__].__class__ = _CallablePackage
