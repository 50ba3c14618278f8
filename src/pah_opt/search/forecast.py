"""What a recipe will cost, before it runs: exact from its plan, the latency from the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.errors import PahOptError
from pah_opt.measure.trouble import forget_out_of_memory

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.layout import ModelAdapter
    from pah_opt.pipeline import Plan
    from pah_opt.registry import Registry
    from pah_opt.search.latency_table import LatencyTable

COMPILED = "compiled"
"""State tag of models whose parts no longer run one by one."""


def forecast(planned: Plan, registry: Registry, table: LatencyTable | None, adapter: ModelAdapter) -> dict[str, float]:
    """Return what a plan says of a recipe's figures, named as in reports.

    ``params`` and ``macs`` are exact where shapes do not depend on values. ``artifact_bytes`` is the least that a file
    can have: zeros that a step promises are counted as if they took nothing. ``latency_p50_ms`` is missing where the
    table cannot tell.
    """
    last = planned.steps[-1].figures
    found = {"params": float(last.params), "macs": float(last.macs), "artifact_bytes": _least_bytes(planned, registry)}
    latency = None if table is None else _latency(planned, registry, table, adapter)
    return found if latency is None else {**found, "latency_p50_ms": latency}


def _least_bytes(planned: Plan, registry: Registry) -> float:
    zeros = 0.0
    for step in planned.steps:
        optimizer = registry.get(step.use).optimizer
        promised = optimizer.expects(optimizer.config_type(**step.config)).zeros_at_least
        zeros = max(zeros, promised or 0.0)
    return planned.steps[-1].figures.weights_bytes * (1.0 - zeros)


def _latency(planned: Plan, registry: Registry, table: LatencyTable, adapter: ModelAdapter) -> float | None:
    for step in planned.steps:
        optimizer = registry.get(step.use).optimizer
        if COMPILED in optimizer.tags(optimizer.config_type(**step.config)).provides:
            return None
    return None if planned.model is None else _asked(table, planned.model, adapter)


def _asked(table: LatencyTable, model: nn.Module, adapter: ModelAdapter) -> float | None:
    try:
        return table.predict(model, adapter)
    except Exception as error:  # noqa: BLE001  # a plugin's layers may not be readable, and timing takes memory
        forget_out_of_memory(error)
        return None


def learn(table: LatencyTable, model: nn.Module, adapter: ModelAdapter) -> None:
    """Add the layers of a model that was made to the table; one that cannot be read is passed over."""
    try:
        table.learn(model, adapter)
    except PahOptError:
        return
