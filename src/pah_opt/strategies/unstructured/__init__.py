"""Unstructured and n:m sparsity: magnitude, importances, Wanda, SparseGPT, 2:4 kernels, gradual schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.hookspecs import hookimpl
from pah_opt.strategies.unstructured.gradual_pruning import GradualPruning
from pah_opt.strategies.unstructured.optimizers import (
    MagnitudePruning,
    SemiStructured,
    SparseGpt,
    UnstructuredPruning,
    Wanda,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.optimizer import AnyOptimizer

pah_opt_api_version = 1


@hookimpl
def pah_opt_optimizers() -> Iterable[AnyOptimizer]:
    """Return the strategies that make zeros."""
    return (MagnitudePruning(), UnstructuredPruning(), Wanda(), SparseGpt(), SemiStructured(), GradualPruning())
