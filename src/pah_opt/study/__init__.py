"""Whole comparisons as data: adaptation variants, recipes and seeds, cached by content, one report at the end.

The package can be called: ``pah_opt.study("tiny")`` runs a study; see :func:`pah_opt.study.running.run_study`.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pah_opt.study.reading import read_study
    from pah_opt.study.results import StudyResult
    from pah_opt.study.running import planned_cells, run_study
    from pah_opt.study.schema import Study
    from pah_opt.study.writing import write_study

_HOMES = {
    "Study": "schema",
    "StudyResult": "results",
    "planned_cells": "running",
    "read_study": "reading",
    "run_study": "running",
    "write_study": "writing",
}

__all__ = ["Study", "StudyResult", "planned_cells", "read_study", "run_study", "write_study"]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use: a study is read and checked without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pah_opt.study' has no attribute {name!r}; public names: {', '.join(_HOMES)}")
    return getattr(importlib.import_module(f"pah_opt.study.{_HOMES[name]}"), name)


class _CallablePackage(types.ModuleType):
    """This package, which is also the function that a user expects under its name."""

    def __call__(self, source: Any, out: Any = "out/study", **options: Any) -> StudyResult:
        """Run a study and write its report; see :func:`pah_opt.study.running.run_study`."""
        from pah_opt.study.running import run_study

        return run_study(source, out, **options)


sys.modules[__name__].__class__ = _CallablePackage
