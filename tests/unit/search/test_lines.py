"""From the cheapest recipes back to what keeps the limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from pah_opt.registry import default_registry
from pah_opt.search import Budget, Space
from pah_opt.search.bound import BoundSpace, Values, same
from pah_opt.search.ends import Ends
from pah_opt.search.judge import Judge
from pah_opt.search.lines import Crossing, Line, Lines, gentle_numbers
from pah_opt.search.proposing import Proposer, Survey
from pah_opt.search.records import Record, State
from pah_opt.search.starts import simple_starts

SPACE = """
name: mine
steps:
  - use: structured-pruning
    optional: true
    with: {target: {params: {low: 0.6, high: 0.9}}, scope: {choices: [layer, global]}}
  - use: magnitude-pruning
    optional: true
    with: {sparsity: {low: 0.1, high: 0.9}}
  - use: torchao
    with: {scheme: int8-weight-only, per_layer: {per: block, choices: [int8-weight-only, int4-weight-only, float]}}
"""
BUDGET = Budget(minimise="size", top1_drop_pp=2.0)


@pytest.fixture
def bound(judge: Judge) -> BoundSpace:
    return BoundSpace.of(Space.from_yaml(SPACE), default_registry(), judge.model, judge.adapter.layout(judge.model))


@pytest.fixture
def cheapest(bound: BoundSpace) -> Values:
    lowest = {"params": 0.0, "sparsity": 1.0, "scope": 0.9}
    return bound.choose(lambda each: each.at(lowest.get(str(each.path[-1]), 0.0) if each.path else 1.0))


def named(bound: BoundSpace, values: Values) -> dict[str, Any]:
    """Return what is chosen, by the last part of its name; of the blocks, which choices there are."""
    single = {each.path[-1] if each.path else each.step: each.value(values[each.name])
              for each in bound.parameters if each.name in values and each.per is None}  # fmt: skip
    return single | {"blocks": {str(each.value(values[each.name])) for each in bound.parameters
                                if each.per and each.name in values}}  # fmt: skip


def cost(bound: BoundSpace) -> Callable[[Values], float]:
    """Cost of a recipe: its share of the parameters times that of its weights that are not zero."""
    return lambda values: named(bound, values).get("params", 1.0) * (1 - named(bound, values).get("sparsity", 0.0))


def tried(bound: BoundSpace, values: Values, drop: float, state: State = "done") -> Record:
    figures = {"artifact_bytes": cost(bound)(values), "top1_drop_pp": drop}
    return Record(0, state, {"name": "r"}, values, figures=figures)


def test_the_ends_differ_from_the_cheapest_in_one_thing(bound: BoundSpace, cheapest: Values) -> None:
    found = [named(bound, values) for values in Ends(bound, BUDGET, cheapest, lambda _: None)([])]
    assert [(each[0], each.get("scope"), each[1]) for each in found] == [
        (True, "global", True),
        (True, "layer", True),
        (False, None, True),
        (True, "global", False),
    ]


def test_without_a_step_the_choices_are_those_that_are_cheapest_then(bound: BoundSpace, cheapest: Values) -> None:
    """Bytes with many zeros take least; without zeros, half bytes do."""

    def predict(values: Values) -> float:
        given = named(bound, values)
        bits = {"float": 32.0, "int8-weight-only": 8.0, "int4-weight-only": 4.0}
        (choice,) = given["blocks"]
        return bits[choice] if not given[1] or choice == "int4-weight-only" else 1 + bits[choice] * 0.1

    ends = [named(bound, values) for values in Ends(bound, BUDGET, cheapest, predict).every()]
    assert [(each[0], each[1], each["blocks"]) for each in ends[-2:]] == [
        (False, True, {"int8-weight-only"}),
        (True, False, {"int4-weight-only"}),
    ]


@pytest.mark.parametrize(("drop", "others"), [(5.0, 1), (30.0, 0)])
def test_another_choice_is_no_rescue_where_the_first_loses_far_too_much(
    drop: float, others: int, bound: BoundSpace, cheapest: Values
) -> None:
    records = [tried(bound, cheapest, drop, "stopped")]
    ends = Ends(bound, BUDGET, cheapest, lambda _: None)
    assert len(list(ends(records))) == 3 + others


def test_an_end_that_saves_less_than_half_as_much_is_not_tried(bound: BoundSpace, cheapest: Values) -> None:
    narrow = Line(bound, cheapest).at(0.7)
    ends = [named(bound, each) for each in Ends(bound, BUDGET, cheapest, cost(bound))([tried(bound, narrow, 0.0)])]
    assert [each[0] and each[1] for each in ends] == [True, True, False], "0.6 of the parameters alone costs more"
    assert [each[1] for each in ends] == [True, True, True]


def test_a_line_leads_from_the_gentle_ends_of_all_ranges_to_the_strong_recipe(
    bound: BoundSpace, cheapest: Values
) -> None:
    line = Line(bound, cheapest)
    gentle, half, strong = (named(bound, line.at(share)) for share in (0.0, 0.5, 1.0))
    assert (gentle["params"], gentle["sparsity"]) == pytest.approx((0.9, 0.1))
    assert (half["params"], half["sparsity"]) == pytest.approx((0.75, 0.5))
    assert strong == named(bound, cheapest)
    assert gentle["blocks"] == half["blocks"] == strong["blocks"]
    assert line.where(line.at(0.3)) == pytest.approx(0.3)
    assert line.where({**line.at(0.3), bound.parameters[2].name: '"layer"'}) is None, "another scope"
    sparsity = next(each.name for each in bound.parameters if each.path == ("sparsity",))
    assert line.where({**line.at(0.3), sparsity: 0.77}) is None


def test_two_points_tell_where_an_exponential_loss_crosses_the_limit() -> None:
    def loss(share: float) -> float:
        return 0.1 * math.exp(6.0 * share)

    crossing = Crossing(0.25, loss(0.25), 1.0, loss(1.0))
    assert loss(crossing.at(2.0)) == pytest.approx(2.0)
    assert crossing.loss_at(0.6) == pytest.approx(loss(0.6))
    assert crossing.at(0.0) == 0.625, "halved where the losses tell nothing"
    assert Crossing(0.0, 0.1, 0.5, 0.1).at(2.0) == 0.25
    assert Crossing(0.0, 0.1, 0.5, 1.5).at(2.0, least=0.3) == 0.4, "a miss for want of confidence"


def descend(bound: BoundSpace, ends: Ends, loss: Callable[[Values], float], most: int = 30) -> list[Record]:
    """Try what ends and lines yield until nothing is new."""
    lines, records = Lines.to(ends, {}), [tried(bound, simple_starts(bound)[0], 0.5)]
    while len(records) < most:
        known = [dict(record.values) for record in records]
        options = [*ends(records), *lines(records)]
        values = next((each for each in options if not any(same(each, other) for other in known)), None)
        if values is None:
            break
        drop = loss(values)
        records.append(tried(bound, values, drop, "done" if drop < 10 else "stopped"))
    return records


def test_the_descent_ends_near_the_limit_on_the_line_that_saves_most(bound: BoundSpace, cheapest: Values) -> None:
    """Pruned to 0.6 this model would lose 40 points, with 90 % zeros 12: the second line reaches further."""

    def loss(values: Values) -> float:
        given = named(bound, values)
        width, zeros = (0.9 - given.get("params", 0.9)) / 0.3, (given.get("sparsity", 0.1) - 0.1) / 0.8
        return 0.1 * math.exp(6.0 * width + 4.8 * zeros)

    records = descend(bound, Ends(bound, BUDGET, cheapest, cost(bound)), loss)
    best = min((record for record in records if record.keeps(BUDGET)), key=lambda each: cost(bound)(dict(each.values)))
    given = named(bound, dict(best.values))
    assert given[0] is False, "without structured pruning"
    assert given["sparsity"] == pytest.approx(0.1 + 0.8 * math.log(20) / 4.8, abs=0.05)
    assert len(records) < 14
    assert all(cost(bound)(dict(record.values)) < 1.0 for record in records[1:])


def test_a_line_whose_end_keeps_the_limit_or_was_refused_has_nothing_more_to_try(
    bound: BoundSpace, cheapest: Values
) -> None:
    ends = Ends(bound, BUDGET, cheapest, cost(bound))
    assert list(Lines.to(ends, {})([])) == []
    assert list(Lines.to(ends, {})([tried(bound, cheapest, 1.0)])) == []
    refused = Record(0, "refused", {"name": "r"}, cheapest)
    assert list(Lines.to(ends, {})([refused])) == []


def test_plans_are_compared_with_plans_since_files_are_larger_than_predicted(
    bound: BoundSpace, cheapest: Values
) -> None:
    other = Line(bound, cheapest).at(0.99)
    kept = Record(0, "done", {"name": "r"}, other, {"artifact_bytes": 5.0, "top1_drop_pp": 0.0},
                  {"artifact_bytes": cost(bound)(other)})  # fmt: skip
    ends = Ends(bound, BUDGET, cheapest, cost(bound))
    missed = tried(bound, ends.every()[1], 3.0)
    assert list(Lines.to(ends, {})([kept, missed])) == [], "no recipe of that line is planned to be cheaper by much"
    assert list(Lines.to(ends, {})([missed])) != []


def test_a_limit_of_nothing_is_found_by_halving(bound: BoundSpace, cheapest: Values) -> None:
    budget, line = Budget(minimise="size", top1_drop_pp=0.0), Line(bound, cheapest)
    lines, records = Lines((line,), budget, cost(bound)), [tried(bound, cheapest, 30.0, "stopped")]
    while (values := next(iter(lines(records)), None)) is not None:
        share = line.where(values)
        assert share is not None
        records.append(tried(bound, values, 0.0 if share < 0.8 else 5.0))
        assert len(records) < 10
    kept = [share for record in records if record.keeps(budget) and (share := line.where(dict(record.values)))]
    assert 0.8 - 1 / 8 < max(kept) < 0.8


def test_of_two_lines_to_the_limit_the_cheaper_one_comes_first_whatever_rounding_says(
    bound: BoundSpace, cheapest: Values
) -> None:
    ends = Ends(bound, BUDGET, cheapest, cost(bound))
    first, _, other, _ = ends.every()
    for drop in range(3, 40):
        records = [tried(bound, first, drop, "stopped"), tried(bound, other, drop + 7, "stopped")]
        costs = [cost(bound)(values) for values in Lines.to(ends, {})(records)]
        assert costs == sorted(costs)
        assert len(costs) == 2


def test_a_line_of_stepped_numbers_knows_its_own_recipes(judge: Judge) -> None:
    stepped = SPACE.replace("high: 0.9}, scope", "high: 0.9, step: 0.05}, scope").replace(
        "sparsity: {low: 0.1, high: 0.9}", "sparsity: {low: 0.1, high: 0.9, step: 0.2}"
    )
    bound = BoundSpace.of(Space.from_yaml(stepped), default_registry(), judge.model, judge.adapter.layout(judge.model))
    line = Line(bound, bound.choose(lambda each: each.at(0.0) if each.path else each.at(1.0)))
    assert [each.path[-1] for each in line.moving] == ["params", "sparsity"]
    assert all(line.where(line.at(share / 32)) is not None for share in range(33))


def test_the_cheapest_recipe_is_tried_first_and_what_is_dearer_than_the_best_is_not(judge: Judge) -> None:
    text = """
    steps:
      - {use: torchao, with: {scheme: {choices: [int4-weight-only, int8-weight-only]}}}
      - {use: magnitude-pruning, optional: true, with: {sparsity: {low: 0.1, high: 0.9}}}
    """
    bound = BoundSpace.of(Space.from_yaml(text), default_registry(), judge.model, judge.adapter.layout(judge.model))
    scheme = bound.parameters[0]

    def predict(values: Values) -> float:
        return 4.0 if scheme.value(values[scheme.name]) == "int4-weight-only" else 8.0

    cheapest = bound.choose(lambda each: each.at(0.0) if each is scheme else each.at(1.0))
    ends = Ends(bound, BUDGET, cheapest, predict)
    assert next(iter(ends([]))) == cheapest
    assert {predict(values) for values in ends([])} == {4.0, 8.0}
    best = Record(0, "done", {"name": "r"}, {}, {"artifact_bytes": 5.0, "top1_drop_pp": 0.0})
    assert {predict(values) for values in ends([best])} == {4.0}


def test_an_end_that_is_refused_is_not_the_gentle_one(bound: BoundSpace, cheapest: Values) -> None:
    sparsity = next(each for each in bound.parameters if each.path == ("sparsity",))

    def weigh(values: Values) -> float:
        return math.inf if float(values[sparsity.name]) > 0.8 else 1.0 - float(values[sparsity.name])

    gentle = gentle_numbers(bound, {**cheapest, sparsity.name: 0.5}, weigh)
    assert gentle[sparsity.name] == pytest.approx(0.1)


def test_what_cannot_be_run_is_not_proposed(bound: BoundSpace, cheapest: Values) -> None:
    def predict(values: Values) -> float:
        found = cost(bound)(values)
        return found if found < 0.1 else math.inf

    ends = Ends(bound, BUDGET, cheapest, predict)
    records = [tried(bound, cheapest, 30.0, "stopped")]
    assert all(predict(values) < math.inf for values in Lines.to(ends, {})(records))


def test_a_space_without_numbers_has_no_lines(judge: Judge) -> None:
    space = Space.from_yaml("steps: [{use: cast, optional: true}, {use: fused-qkv, optional: true}]")
    bound = BoundSpace.of(space, default_registry(), judge.model, judge.adapter.layout(judge.model))
    ends = Ends(bound, BUDGET, bound.choose(lambda each: each.at(1.0)), lambda _: None)
    assert len(ends.every()) == 3
    assert Lines.to(ends, {}).lines == ()


def test_what_runs_meanwhile_is_not_proposed_again(bound: BoundSpace, cheapest: Values) -> None:
    ends = Ends(bound, BUDGET, cheapest, cost(bound))
    proposer = Proposer(bound, BUDGET, survey=lambda: Survey({}, [ends, Lines.to(ends, {})]))
    records = [tried(bound, simple_starts(bound)[0], 0.5), tried(bound, cheapest, 30.0, "stopped")]
    for record in records:
        proposer.is_new(dict(record.values))
    proposals = []
    for _ in range(2):
        values, origin = proposer.next(records)
        assert values is not None
        assert origin == "start"
        proposer.is_new(values)
        proposals.append(values)
    assert not any(same(one, other) for index, one in enumerate(proposals) for other in proposals[:index])


def test_each_choice_of_places_is_tried_everywhere_as_a_careful_user_would(judge: Judge) -> None:
    space = Space.from_yaml(SPACE.replace("- use: torchao\n", "- use: torchao\n    optional: true\n"))
    bound = BoundSpace.of(space, default_registry(), judge.model, judge.adapter.layout(judge.model))
    starts = [named(bound, values) for values in simple_starts(bound) if values[bound.switches[-1].name] == "true"]
    assert [(each[0], each[1], each["blocks"]) for each in starts] == [
        (False, False, {"int4-weight-only"}),
        (False, False, {"int8-weight-only"}),
        (False, False, {"float"}),
        (True, True, {"int4-weight-only"}),
    ]
