from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from pah_opt.measure.accuracy import predict
from pah_opt.models import find_adapter
from pah_opt.pipeline import apply, plan
from pah_opt.recipe import Recipe, Step
from pah_opt.registry import default_registry
from pah_opt.search import Budget
from pah_opt.search.bound import BoundSpace, Values
from pah_opt.search.clock import Paired, paired_speed
from pah_opt.search.extremes import Extremes
from pah_opt.search.front import Point
from pah_opt.search.judge import Judge
from pah_opt.search.latency_table import LatencyTable
from pah_opt.search.looking import Looker
from pah_opt.search.proposing import Proposer, Survey, each_once
from pah_opt.search.racing import Rivals, beyond_doubt, rungs
from pah_opt.search.records import Record, Rung, State
from pah_opt.search.scan import knapsack_starts
from pah_opt.search.space import Space
from pah_opt.search.starts import simple_starts, thorough_starts
from pah_opt.splits import Data
from pah_opt.testing import tiny_vit

HALF = Recipe(name="half", steps=[Step.of("structured-pruning", mlp=0.5, importance="magnitude", repair="none")])
NOTHING = Record(0, "done", None)


def test_counts_and_bytes_are_predicted_exactly_without_running(judge: Judge) -> None:
    predicted = judge.predict(HALF)
    measured = judge(HALF, Rivals({}), NOTHING).figures
    assert predicted["params"] == measured["params"]
    assert predicted["macs"] == measured["macs"]
    assert predicted["artifact_bytes"] == pytest.approx(measured["artifact_bytes"], rel=0.1)
    assert predicted["artifact_bytes"] <= (measured["artifact_bytes"] or 0)


def test_a_recipe_over_a_limit_by_its_plan_is_never_run(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = replace(judge, budget=Budget(minimise="latency", macs=1000.0, top1_drop_pp=50))
    monkeypatch.setattr("pah_opt.pipeline.running._Runner.run", lambda *_: pytest.fail("it was run"))
    found = strict(HALF, Rivals({}), NOTHING)
    assert found.state == "over"
    assert "macs is planned to be" in str(found.reason)
    assert found.predicted["macs"] > 1000


def test_a_recipe_that_does_not_fit_is_refused_and_not_fatal(judge: Judge) -> None:
    found = judge(Recipe(steps=[Step.of("input-size", size=17)]), Rivals({}), NOTHING)
    assert found.state == "refused"
    assert "17" in str(found.reason)


def test_predicted_latency_is_near_what_is_measured() -> None:
    """Loosely: a machine shared with others; the benchmark shows how near on a quiet one."""
    model = tiny_vit(blocks=3, hidden=128, mlp=512, image=64)
    adapters = default_registry().adapters
    adapter = find_adapter(model, adapters)
    narrow = Recipe(steps=[Step.of("structured-pruning", mlp=0.75, importance="magnitude", repair="none")])
    planned = plan(model, narrow).model
    real = apply(model, narrow).model
    speed = paired_speed(model, real, adapters, 4)
    table = LatencyTable(batch_size=4)
    table.calibrate(model, adapter, speed.dense_ms)
    assert planned is not None
    predicted = table.predict(planned, adapter)
    assert predicted is not None
    assert table.predict(model, adapter) == pytest.approx(speed.dense_ms, rel=1e-6), "calibrated on the dense model"
    assert predicted == pytest.approx(speed.dense_ms / speed.ratio, rel=0.5)
    assert predicted < speed.dense_ms


def arithmetic(_table: LatencyTable, module: nn.Module, _given: torch.Tensor) -> float:
    """Let every part take a microsecond, and a whole pass ten more for each block and for what is around them."""
    blocks = sum(type(each).__name__.endswith("Layer") for each in module.modules())
    return 0.001 * (1 + 12 * blocks) + 0.010 * (blocks + 1) if blocks else 0.001


def test_glue_stays_the_same_however_narrow_a_block_is_and_goes_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LatencyTable, "_time", arithmetic)
    model, fewer = tiny_vit(blocks=3), tiny_vit(blocks=2)
    adapter = find_adapter(model, default_registry().adapters)
    table = LatencyTable(batch_size=8)
    parts = table._parts_ms(model, adapter.layout(model)) or 0.0
    table.calibrate(model, adapter, 2 * parts + 0.040)
    assert (table.glue_ms, table.factor) == (pytest.approx(0.010), pytest.approx(2.0))
    left = table._parts_ms(fewer, adapter.layout(fewer)) or 0.0
    assert table.predict(fewer, adapter) == pytest.approx(2 * left + 0.030)


def test_glue_is_never_most_of_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LatencyTable, "_time", arithmetic)
    model = tiny_vit(blocks=3)
    adapter = find_adapter(model, default_registry().adapters)
    table = LatencyTable(batch_size=8)
    table.calibrate(model, adapter, 0.060)
    assert table.glue_ms == pytest.approx(0.5 * 0.060 / 4)
    assert table.predict(model, adapter) == pytest.approx(0.060)


def test_a_quantized_layer_is_predicted_once_one_was_seen(judge: Judge) -> None:
    quantized = Recipe(steps=[Step.of("torchao", scheme="int8-weight-only")])
    planned = plan(judge.model, quantized).model
    table = LatencyTable()
    assert planned is not None
    assert table.predict(planned, judge.adapter) is None
    table.learn(apply(judge.model, quantized).model, judge.adapter)
    assert table.predict(planned, judge.adapter) is not None


def test_a_search_that_goes_on_keeps_the_dense_latency_to_which_its_records_are_relative(judge: Judge) -> None:
    kept = {**judge.dense, "latency_p50_ms": 1e6}
    later = replace(judge, dense=dict(kept), looker=None, table=None)
    later.prepare()
    assert later.dense == kept
    figures = later(HALF, Rivals({}), NOTHING).figures
    assert figures["latency_p50_ms"] == pytest.approx(1e6 / (figures["speedup_p50_x"] or 1.0))
    assert later.predict(HALF)["latency_p50_ms"] > 1e5, "the table is calibrated on the same figure"


def test_the_dense_model_is_as_fast_as_itself_however_noisy_its_timing(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pah_opt.search.judge.paired_speed", lambda *_: Paired(dense_ms=4.0, ratio=0.125))
    noisy = replace(judge, dense={}, looker=None, table=None, screening=False)
    noisy.prepare()
    assert (noisy.dense["latency_p50_ms"], noisy.dense["speedup_p50_x"]) == (4.0, 1.0)


def test_parts_of_the_images_grow_and_end_with_all() -> None:
    assert rungs(30) == (30,)
    sizes = rungs(1000)
    assert sizes[-1] == 1000
    assert all(large // small == 3 for small, large in itertools.pairwise(sizes))


def test_the_worse_half_is_stopped_and_the_front_never() -> None:
    rivals = Rivals({50: (*tuple(Point(cost, 10.0 - cost) for cost in range(8)), Point(5, 9), Point(6, 9))})
    assert rivals.outdone(50, Point(9, 9.5)) is not None
    assert rivals.outdone(50, Point(0.5, 9.0)) is None
    assert rivals.outdone(150, Point(9, 9.5)) is None, "nobody got there yet"


def test_what_costs_more_than_a_trial_that_loses_nothing_is_never_run(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = judge.predict(HALF)[judge.budget.figure]
    monkeypatch.setattr("pah_opt.search.judge.stored_bytes", lambda _: pytest.fail("it was made"))
    found = judge(HALF, Rivals({}, lossless=0.5 * cost), NOTHING)
    assert (found.state, dict(found.figures)) == ("outdone", {})
    assert "a trial that loses nothing costs" in str(found.reason)


def test_only_trials_that_lose_nothing_and_keep_every_limit_outdo_others_by_their_cost() -> None:
    def trial(cost: float, drop: float, state: State = "done") -> Record:
        return Record(0, state, None, figures={"macs": cost, "params": 10 * cost, "top1_drop_pp": drop})

    budget = Budget(minimise="macs", params=70)
    records = [trial(5, 0.5), trial(6, 0.0), trial(7, -0.2), trial(3, 0.0, "stopped")]
    rivals = Rivals.of(records, budget)
    assert rivals.lossless == 6
    assert rivals.pointless(6) is None
    assert rivals.pointless(6.1) is not None
    assert Rivals.of([trial(8, 0.0)], budget).lossless is None, "it misses the limit of parameters"
    assert Rivals({}).pointless(1e9) is None


def test_a_limit_is_missed_beyond_doubt_only_where_chance_cannot_be_it() -> None:
    assert beyond_doubt(10.0, 10, 100, 1.0) is not None
    assert beyond_doubt(3.0, 3, 100, 1.0) is None


def test_a_hopeless_trial_is_stopped_on_part_of_the_images(judge: Judge, data: Data) -> None:
    """A model with other weights answers at random."""
    assert data.train is not None
    images = data.train.subset(range(300))
    dense = predict(judge.model, judge.adapter, images)
    ruined = tiny_vit(image=16, hidden=32, seed=5)
    racing, patient = (Looker(images, dense, 1.0, racing=racing) for racing in (True, False))
    stopped = racing.look(ruined, judge.adapter, None, Rivals({}))
    assert stopped.rungs[-1].images == rungs(300)[0] < 300
    assert "without doubt" in str(stopped.hopeless)
    assert patient.look(ruined, judge.adapter, None, Rivals({})).rungs[-1].images == 300


def test_the_knapsack_starts_with_what_damages_least(judge: Judge) -> None:
    space = Space.from_yaml(
        "steps: [{use: torchao, with: {scheme: int8-weight-only, "
        "per_layer: {per: block, choices: [float, int8-weight-only]}}}]"
    )
    bound = BoundSpace.of(space, default_registry(), judge.model, judge.adapter.layout(judge.model))
    starts = knapsack_starts(bound, replace(judge, budget=Budget(minimise="size")))
    chosen = [[bound.named(name).value(value) for name, value in sorted(values.items())] for values in starts]
    assert ["int8-weight-only", "int8-weight-only"] in chosen
    assert any(sorted(each) == ["float", "int8-weight-only"] for each in chosen)
    assert knapsack_starts(bound, judge, limit_s=0.0) == []


def test_widths_of_single_blocks_take_part_in_the_scan_and_the_knapsack(judge: Judge) -> None:
    space = Space.from_yaml(
        "steps: [{use: structured-pruning, with: {importance: magnitude, repair: none, "
        "mlp_per_block: {per: block, choices: [0.0, 0.5]}}}]"
    )
    bound = BoundSpace.of(space, default_registry(), judge.model, judge.adapter.layout(judge.model))
    starts = knapsack_starts(bound, replace(judge, budget=Budget(minimise="macs", top1_drop_pp=50)))
    chosen = [sorted(bound.named(name).value(value) for name, value in values.items()) for values in starts]
    assert [0.5, 0.5] in chosen
    assert [0.0, 0.5] in chosen


@pytest.fixture
def optional(judge: Judge) -> BoundSpace:
    space = Space.from_yaml(
        "steps: [{use: magnitude-pruning, optional: true, with: {sparsity: {low: 0.1, high: 0.9}}}, "
        "{use: cast, optional: true}]"
    )
    return BoundSpace.of(space, default_registry(), judge.model, judge.adapter.layout(judge.model))


def steps_of(bound: BoundSpace, starts: list[Values]) -> list[list[tuple[str, float | None]]]:
    recipes = [bound.recipe(values, "start") for values in starts]
    return [[(step.use, step.with_.get("sparsity")) for step in recipe.steps] for recipe in recipes if recipe]


def test_simple_starts_try_each_optional_step_alone_before_all_of_them(optional: BoundSpace) -> None:
    assert steps_of(optional, simple_starts(optional)) == [
        [("cast", None)],
        [("magnitude-pruning", 0.5)],
        [("magnitude-pruning", 0.5), ("cast", None)],
    ]


def test_thorough_starts_try_both_ends_of_every_range(optional: BoundSpace) -> None:
    found = steps_of(optional, thorough_starts(optional))
    assert [("magnitude-pruning", 0.1)] in found
    assert [("magnitude-pruning", 0.9)] in found
    assert len(found[0]) == len(found[-1]) == 2


def test_zeros_take_a_bit_and_save_nothing_where_weights_share_bytes(judge: Judge) -> None:
    def predicted(*steps: Step) -> float:
        return judge.predict(Recipe(name="sizes", steps=steps))["artifact_bytes"]

    zeros = Step.of("magnitude-pruning", sparsity=0.9)
    kinds = [Step.of("torchao", scheme=scheme) for scheme in ("int8-weight-only", "int4-weight-only")]
    int8, int4 = (predicted(kind) for kind in kinds)
    sparse8, sparse4 = (predicted(zeros, kind) for kind in kinds)
    assert sparse8 < 0.8 * int8
    assert 0.95 * int4 < sparse4 <= int4, "the classifier alone is stored in float"


def test_nothing_is_planned_twice(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = replace(judge, budget=Budget(minimise="size"), table=None)
    first = sizes.predict(HALF)
    monkeypatch.setattr("pah_opt.search.judge.plan", lambda *_, **__: pytest.fail("it was planned again"))
    assert sizes.predict(HALF.model_copy(update={"name": "another"})) == first


def test_the_dense_model_is_left_as_it_was(judge: Judge, model: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    judge(HALF, Rivals({}), NOTHING)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


DECIDING = """
steps:
  - {use: structured-pruning, optional: true, with: {target: {params: {low: 0.6, high: 0.9}},
     scope: {choices: [layer, global]}}}
  - {use: torchao, with: {scheme: int8-weight-only,
     per_layer: {per: block, choices: [float, int8-weight-only]}}}
"""


def test_what_makes_recipes_cheap_is_found_on_plans_and_what_does_not_matter_is_left_out(judge: Judge) -> None:
    bound = BoundSpace.of(
        Space.from_yaml(DECIDING), default_registry(), judge.model, judge.adapter.layout(judge.model)
    )  # fmt: skip
    extremes = Extremes(bound, judge, by_place=False)
    best = extremes.least("artifact_bytes")
    assert best is not None
    found = {bound.named(name).path: bound.named(name).value(value) for name, value in
             extremes.decisive(best, "artifact_bytes").items()}  # fmt: skip
    assert found.pop(()) is True
    assert found.pop(("target", "params")) == 0.6
    assert set(found.values()) == {"int8-weight-only"}, "the scope costs nothing either way"


def test_proposals_after_the_survey_lie_between_the_front_and_what_is_cheap(judge: Judge) -> None:
    space = "steps: [{use: magnitude-pruning, with: {sparsity: {low: 0.05, high: 0.9}}}]"
    bound = BoundSpace.of(Space.from_yaml(space), default_registry(), judge.model,
                          judge.adapter.layout(judge.model))  # fmt: skip
    (name,) = (each.name for each in bound.parameters)
    budget = Budget(minimise="size", top1_drop_pp=50)
    surveys: list[None] = []

    def survey() -> Survey:
        surveys.append(None)
        return Survey({name: 0.9}, [each_once([{name: 0.9}])])

    proposer = Proposer(bound, budget, starts=[{name: 0.1}], survey=survey)
    assert proposer.next([]) == ({name: 0.1}, "start")
    assert not surveys, "the first trials do not wait for it"
    assert proposer.next([]) == ({name: 0.9}, "start")
    figures = {"artifact_bytes": 100.0, "top1_drop_pp": 0.0}
    records = [
        Record(number, "done", None, {name: 0.1}, figures=dict(figures), rungs=(Rung(10, 0.0),)) for number in range(5)
    ]
    seen = {float((proposer.next(records)[0] or {name: -1.0})[name]) for _ in range(12)}
    assert surveys == [None], "asked once"
    assert any(0.25 < value < 0.8 for value in seen)


def test_between_moves_numbers_that_far_and_keeps_what_the_goal_does_not_name(judge: Judge) -> None:
    bound = BoundSpace.of(
        Space.from_yaml(DECIDING), default_registry(), judge.model, judge.adapter.layout(judge.model)
    )  # fmt: skip
    values = bound.choose(lambda each: each.at(0.0) if each.path else each.at(1.0))
    (target,) = (each.name for each in bound.parameters if each.path == ("target", "params"))
    (scope,) = (each.name for each in bound.parameters if each.path == ("scope",))
    found = bound.between(values, {target: 0.9}, 0.5, random.Random(0))
    assert found[target] == pytest.approx(0.75)
    assert found[scope] == values[scope]
