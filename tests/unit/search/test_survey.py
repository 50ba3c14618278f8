"""What a search tries before it has learnt anything."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pah_opt.registry import default_registry
from pah_opt.search import Budget, Space
from pah_opt.search.bound import BoundSpace, Values
from pah_opt.search.judge import Judge
from pah_opt.search.lines import Lines
from pah_opt.search.settings import Settings
from pah_opt.search.starts import simple_starts
from pah_opt.search.survey import Surveyor

SPACE = """
steps:
  - {use: structured-pruning, optional: true, with: {target: {params: {low: 0.6, high: 0.9}}}}
  - {use: magnitude-pruning, with: {sparsity: {low: 0.1, high: 0.9}}}
"""
WITH_FLOAT = """
steps:
  - {use: magnitude-pruning, optional: true, with: {sparsity: {low: 0.1, high: 0.9}}}
  - use: torchao
    optional: true
    with: {scheme: int8-weight-only, per_layer: {per: block, choices: [int8-weight-only, float]}}
"""


def surveyor(judge: Judge, text: str, **budget: Any) -> Surveyor:
    bound = BoundSpace.of(Space.from_yaml(text), default_registry(), judge.model, judge.adapter.layout(judge.model))
    study: Any = SimpleNamespace(scanned=True, records=[])
    return Surveyor(bound, replace(judge, budget=Budget(**budget), table=None), study, Settings())


def uses(found: Surveyor, starts: list[Values]) -> list[list[str]]:
    recipes = [found.bound.recipe(values, "start") for values in starts]
    return [[step.use for step in recipe.steps] for recipe in recipes if recipe is not None]


@pytest.mark.parametrize(("minimise", "gentle"), [("params", 0.1), ("size", 0.1)])
def test_numbers_get_no_stronger_on_the_way_back_from_the_cheapest_recipe(
    minimise: str, gentle: float, judge: Judge
) -> None:
    """Zeros save no parameters, so the cheapest recipe may have few of them: its line must not lead to many."""
    found = surveyor(judge, SPACE, minimise=minimise)
    lines = next(source for source in found.look().sources if isinstance(source, Lines))
    name = next(each.name for each in found.bound.parameters if each.path == ("sparsity",))
    assert lines.lines
    assert all(line.at(0.0)[name] == pytest.approx(gentle) for line in lines.lines)


def test_what_is_refused_is_no_start_and_is_planned_once(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    found = surveyor(judge, WITH_FLOAT, minimise="size")
    assert ["torchao"] in uses(found, found.first())
    nothing = found.bound.choose(lambda each: each.at(0.0) if each.step == 0 else each.at(1.0))
    assert nothing in simple_starts(found.bound)
    assert nothing not in found.first(), "float everywhere is refused"
    assert found.cost(nothing) == float("inf")
    monkeypatch.setattr("pah_opt.search.judge.plan", lambda *_, **__: pytest.fail("it was planned again"))
    assert found.cost(nothing) == float("inf")


def test_where_the_dense_model_misses_a_limit_what_keeps_it_is_a_start(judge: Judge) -> None:
    limit = 0.9 * (judge.dense["artifact_bytes"] or 0.0) / 1e6
    small = surveyor(judge, WITH_FLOAT, minimise="macs", file_mb=limit)
    assert ["torchao"] in uses(small, small.first())
    dense = {"macs": 1.0}  # as if every recipe had as many: then what is there is tried
    free = surveyor(judge, WITH_FLOAT, minimise="macs")
    free.judge.dense = free.judge.dense | dense
    assert free.first() == simple_starts(free.bound)


def test_without_screening_nothing_is_predicted(judge: Judge) -> None:
    found = surveyor(judge, WITH_FLOAT, minimise="size")
    blind = replace(found, settings=Settings(screening=False))
    assert blind.cost(blind.first()[0]) is None
