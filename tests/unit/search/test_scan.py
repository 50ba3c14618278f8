"""The scan of per-layer choices and its knapsack."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.models.calibration import watching_inputs
from pah_opt.registry import default_registry
from pah_opt.search import Budget, Space
from pah_opt.search.bound import BoundSpace, Values
from pah_opt.search.judge import Judge
from pah_opt.search.proxy import output_errors
from pah_opt.search.scan import Damage, Scan, knapsack_starts

TORCHAO = "{use: torchao, with: {scheme: int8-weight-only, per_layer: {per: block, choices: [CHOICES]}}}"


def bound(judge: Judge, *choices: str, before: str = "") -> BoundSpace:
    text = f"steps: [{before}{TORCHAO.replace('CHOICES', ', '.join(choices))}]"
    layout = judge.adapter.layout(judge.model)
    return BoundSpace.of(Space.from_yaml(text), default_registry(), judge.model, layout)


def chosen(space: BoundSpace, starts: list[Values]) -> list[list[Any]]:
    return [[space.named(name).value(value) for name, value in sorted(values.items())] for values in starts]


def test_the_scan_shows_each_model_images_of_the_size_that_it_takes(judge: Judge) -> None:
    space = bound(judge, "float", "int8-weight-only", before="{use: input-size, with: {size: 8}}, ")
    starts = chosen(space, knapsack_starts(space, replace(judge, budget=Budget(minimise="size"))))
    assert ["int8-weight-only", "int8-weight-only"] in starts


def test_a_choice_that_is_refused_is_no_start_and_the_others_are(judge: Judge) -> None:
    space = bound(judge, "fp8-dynamic", "int8-weight-only", "float")
    starts = chosen(space, knapsack_starts(space, judge))
    assert starts
    assert all("fp8-dynamic" not in choices for choices in starts), "it needs a GPU and bfloat16"


@pytest.mark.parametrize("error", [ZeroDivisionError("kaput"), RuntimeError("DefaultCPUAllocator: no memory")])
def test_what_crashes_in_the_scan_is_no_start_and_not_fatal(
    error: Exception, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("pah_opt.search.scan.apply", crash)
    assert knapsack_starts(bound(judge, "float", "int8-weight-only"), judge) == []


@pytest.mark.parametrize(
    ("budget", "quantized"),
    [({"minimise": "size"}, {1, 2}), ({"minimise": "latency"}, {0}), ({"minimise": "energy"}, {1, 2}),
     ({"minimise": "latency", "file_mb": 1}, {0, 1, 2})],
)  # fmt: skip
def test_the_knapsack_spends_what_the_budget_names(budget: dict[str, Any], quantized: set[int], judge: Judge) -> None:
    """Quantized layers are smaller and slower here: who minimises latency has no reason for them."""
    space = bound(judge, "float", "int8-weight-only")
    scan = Scan(space, replace(judge, budget=Budget(**budget)), space.parameters)
    small, large = ({"artifact_bytes": size, "latency_p50_ms": time} for size, time in ((10.0, 2.0), (40.0, 1.0)))
    rows = {place.name: dict(zip(place.labels, (Damage(large, 0.0), Damage(small, 0.1)), strict=True))
            for place in space.parameters}  # fmt: skip
    starts = chosen(space, list(scan.allocations(rows)))
    assert {choices.count("int8-weight-only") for choices in starts} == quantized


def test_where_the_scan_takes_too_long_damages_are_estimated_from_one_model_a_choice(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = bound(judge, "int4-weight-only", "int8-weight-only", "float", "fp8-dynamic")
    patient = replace(judge, budget=Budget(minimise="size"), table=None)
    monkeypatch.setattr(Scan, "_measured", lambda *_: None)
    made: list[Values] = []
    make = Scan._made  # counted
    monkeypatch.setattr(Scan, "_made", lambda self, values: made.append(values) or make(self, values))
    found = Scan(space, patient, space.parameters).run(until=float("inf"))
    assert found is not None
    assert len(made) == 2, "float everywhere does nothing, and fp8 is refused"
    for row in found.values():
        harm = {json.loads(str(choice)): damage.harm for choice, damage in row.items()}
        assert harm["float"] == 0.0 < harm["int8-weight-only"] < harm["int4-weight-only"]
        assert "fp8-dynamic" not in harm


def test_layers_that_cannot_be_compared_give_no_estimate(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    def another_width(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("pah_opt.search.scan.output_errors", another_width)
    monkeypatch.setattr(Scan, "_measured", lambda *_: None)
    assert knapsack_starts(bound(judge, "float", "int8-weight-only"), judge) == []


def test_the_estimated_damage_is_the_weight_error_weighted_by_the_inputs_second_moments(judge: Judge) -> None:
    layout = judge.adapter.layout(judge.model)
    path = layout.blocks[0].mlp.fc1
    changed = copy.deepcopy(judge.model)
    dense, layer = judge.model.get_submodule(path), changed.get_submodule(path)
    assert isinstance(dense, nn.Linear)
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight += 0.01 * torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    images = judge.training.subset(range(16))
    errors = output_errors(judge.model, changed, judge.adapter, images, [path, layout.blocks[1].mlp.fc1])
    seen: list[torch.Tensor] = []
    with watching_inputs({path: dense}, lambda _, inputs: seen.append(inputs)), torch.no_grad():
        judge.model(next(iter(images.batches(16))).pixel_values)
        tokens = seen[0].flatten(0, 1).double()
        change, scale = (layer.weight - dense.weight).double(), dense(seen[0]).double().square().sum()
    expected = (change @ (tokens.T @ tokens) @ change.T).trace() / scale
    assert errors[path] == pytest.approx(float(expected), rel=1e-4)
    assert errors[layout.blocks[1].mlp.fc1] == 0.0
