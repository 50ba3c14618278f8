from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from pah_opt.search.front import Point, front, hypervolume
from pah_opt.search.knapsack import allocate

layers = st.integers(1, 4).flatmap(
    lambda choices: st.lists(
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), min_size=choices, max_size=choices),
        min_size=1, max_size=5,
    )
)  # fmt: skip


@settings(max_examples=80)
@given(layers=layers, budget=st.integers(0, 30))
def test_the_knapsack_finds_what_brute_force_finds(layers: list[list[tuple[int, int]]], budget: int) -> None:
    costs = [[cost for cost, _ in row] for row in layers]
    damages = [[float(damage) for _, damage in row] for row in layers]
    every = itertools.product(*(range(len(row)) for row in layers))
    fitting = [c for c in every if sum(row[i] for row, i in zip(costs, c, strict=True)) <= budget]
    chosen = allocate(costs, damages, budget)
    if not fitting:
        assert chosen is None
        return
    assert chosen in fitting
    least = min(sum(row[i] for row, i in zip(damages, c, strict=True)) for c in fitting)
    assert sum(row[i] for row, i in zip(damages, chosen, strict=True)) == least


def test_costs_that_are_no_whole_numbers_never_exceed_the_budget() -> None:
    costs = [[0.1, 1.37e6], [0.3, 2.11e6], [0.2, 0.93e6]]
    chosen = allocate(costs, [[5.0, 0.0], [3.0, 0.0], [4.0, 0.0]], 3.1e6)
    assert chosen == (1, 0, 1)


@settings(max_examples=60)
@given(points=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats_and_the_hypervolume_is_the_area_it_covers(
    points: list[tuple[int, int]],
) -> None:
    found = [Point(*point) for point in points]
    best = {found[index] for index in front(found)}
    assert best == {p for p in found if not any(other.beats(p) for other in found)}
    cells = sum(any(p.cost <= x and p.loss <= y for p in found) for x in range(10) for y in range(10))
    assert hypervolume(found, Point(10, 10)) == cells
