"""What a recipe will cost, before it runs: exact from its plan, the latency from the table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pah_opt.errors import PahOptError
from pah_opt.measure.tensors import linear_layers, linear_shape, storage_type
from pah_opt.measure.trouble import forget_out_of_memory

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.layout import ModelAdapter
    from pah_opt.pipeline import Plan
    from pah_opt.registry import Registry
    from pah_opt.search.latency_table import LatencyTable

WHOLE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
"""Bytes of a weight in the types whose zeros a file leaves out; in others several weights share a byte."""
UNTOLD = frozenset({"compiled", "tokens:merged"})
"""State tags of models whose parts no longer run one by one, or not on as many tokens as the layout says."""


def forecast(planned: Plan, registry: Registry, table: LatencyTable | None, adapter: ModelAdapter) -> dict[str, float]:
    """Return what a plan says of a recipe's figures, named as in reports.

    ``params`` and ``macs`` are exact where shapes do not depend on values. ``artifact_bytes`` is the least that a file
    can have: a zero that a step promises takes one bit, or as much as any other weight where several share a byte.
    ``latency_p50_ms`` is missing where the table cannot tell.
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
    return planned.steps[-1].figures.weights_bytes - (_most_saved(planned.model, zeros) if zeros else 0.0)


def _most_saved(model: nn.Module | None, zeros: float) -> float:
    """Return what zeros can save in a file at most, in bytes: a bit for each weight says where they are."""
    saved = 0.0
    for layer in linear_layers(model).values() if model is not None else ():
        size = WHOLE_BYTES.get(storage_type(getattr(layer, "weight", None)), 0)
        count = math.prod(linear_shape(layer))
        saved += max(0.0, count * (size * zeros - 1 / 8)) if size else 0.0
    return saved


def _latency(planned: Plan, registry: Registry, table: LatencyTable, adapter: ModelAdapter) -> float | None:
    for step in planned.steps:
        optimizer = registry.get(step.use).optimizer
        if UNTOLD & optimizer.tags(optimizer.config_type(**step.config)).provides:
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
