"""Compress and speed up Vision Transformers with recipes, and report true figures.

>>> import pah_opt
>>> recipe = pah_opt.Recipe(steps=[pah_opt.Step.of("magnitude-pruning", sparsity=0.5)])
>>> artifact = pah_opt.apply(model, recipe)  # doctest: +SKIP

Everything here is loaded when it is first used: ``import pah_opt`` imports neither torch nor pydantic.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pah_opt.adapt.adaptation import adapt
    from pah_opt.artifact import Artifact, load
    from pah_opt.export.exporting import export
    from pah_opt.hookspecs import hookimpl
    from pah_opt.measure.settings import MeasureSettings
    from pah_opt.optimizer import Context, Effect, Needs, Optimizer, OptimizerConfig, Tags
    from pah_opt.pipeline import Plan, apply, plan
    from pah_opt.recipe import Gate, Recipe, Step
    from pah_opt.report import Report, check_gates, compare
    from pah_opt.report import measure_model as measure
    from pah_opt.search.searching import search
    from pah_opt.splits import Batch, Data, Split
    from pah_opt.study.running import run_study as study
    from pah_opt.version import __version__

_HOMES = {
    "Artifact": "pah_opt.artifact",
    "Batch": "pah_opt.splits",
    "Context": "pah_opt.optimizer",
    "Data": "pah_opt.splits",
    "Effect": "pah_opt.optimizer",
    "Gate": "pah_opt.recipe",
    "MeasureSettings": "pah_opt.measure.settings",
    "Needs": "pah_opt.optimizer",
    "Optimizer": "pah_opt.optimizer",
    "OptimizerConfig": "pah_opt.optimizer",
    "Plan": "pah_opt.pipeline",
    "Recipe": "pah_opt.recipe",
    "Report": "pah_opt.report",
    "Split": "pah_opt.splits",
    "Step": "pah_opt.recipe",
    "Tags": "pah_opt.optimizer",
    "__version__": "pah_opt.version",
    "adapt": "pah_opt.adapt",
    "apply": "pah_opt.pipeline",
    "check_gates": "pah_opt.report",
    "compare": "pah_opt.report",
    "export": "pah_opt.export",
    "hookimpl": "pah_opt.hookspecs",
    "load": "pah_opt.artifact",
    "measure": "pah_opt.measure",
    "plan": "pah_opt.pipeline",
    "search": "pah_opt.search",
    "study": "pah_opt.study",
}

__all__ = [  # written out for type checkers and linters; a test holds it equal to _HOMES
    "Artifact",
    "Batch",
    "Context",
    "Data",
    "Effect",
    "Gate",
    "MeasureSettings",
    "Needs",
    "Optimizer",
    "OptimizerConfig",
    "Plan",
    "Recipe",
    "Report",
    "Split",
    "Step",
    "Tags",
    "__version__",
    "adapt",
    "apply",
    "check_gates",
    "compare",
    "export",
    "hookimpl",
    "load",
    "measure",
    "plan",
    "search",
    "study",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pah_opt' has no attribute {name!r}; public names: {', '.join(_HOMES)}")
    home = importlib.import_module(_HOMES[name])
    value = (
        home if home.__name__ == f"pah_opt.{name}" else getattr(home, name)
    )  # packages adapt, export, measure, search and study can be called
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(_HOMES)
