"""Widths come out as asked: aligned, above their minimum, on target, and the least important blocks narrowest."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pah_opt.errors import RecipeError
from pah_opt.layout import Attention, Block, Layout, Mlp
from pah_opt.strategies.structured.allocation import Allocator, Ranking, Request
from pah_opt.strategies.structured.sizes import BlockShape, Sizes, Widths, shapes_of


def sizes(blocks: int = 4, heads: int = 4, head_dim: int = 8, mlp: int = 128, hidden: int = 32) -> Sizes:
    attention = Attention("a", "q", "k", "v", "o", heads, head_dim, head_dim)
    block = Block("b", attention, Mlp("m", "1", "2", mlp), ("n", "m"))
    layout = Layout((block,) * blocks, "b", "p", ("c",), "n", hidden, (32, 32), (8, 8), 3, 10, 1)
    return Sizes(layout, {"params": 3000, "macs": 40000, "size": 12000}, 4, ((True, True),) * blocks)


def allocator(align: int = 1, min_mlp: int = 1, **options: Any) -> Allocator:
    return Allocator.of(sizes(**options), Widths(align, min_mlp))


def rankings(blocks: int = 4, heads: int = 4, mlp: int = 128) -> list[Ranking]:
    """Later blocks are more important, by a factor of three each."""
    return [
        Ranking.of(block, kind, [scale * 3.0**block * (1 + i / count) for i in range(count)])
        for block in range(blocks)
        for kind, count, scale in (("heads", heads, 100.0), ("mlp", mlp, 1.0))
    ]


def test_shares_are_taken_in_every_block_alike() -> None:
    found = allocator().allocate(Request({"heads": 0.25, "head_dims": 0.5, "mlp": 0.75}))
    assert found == (BlockShape(3, 4, 4, 32),) * 4


@given(st.floats(0.01, 0.95), st.sampled_from([1, 2, 8, 16, 64]), st.integers(1, 40))
def test_widths_are_allowed_whatever_the_share(share: float, align: int, least: int) -> None:
    for shape in allocator(align, least).allocate(Request({"heads": share, "head_dims": share, "mlp": share})):
        assert 1 <= shape.heads <= 4
        assert 1 <= shape.head_dim <= 8
        assert min(least, 128) <= shape.mlp <= 128
        assert shape.mlp % align == 0
        whole = shape.heads == 4 and shape.head_dim == 8
        assert shape.heads * shape.head_dim % math.gcd(align, 32) == 0 or whole


def test_a_share_above_zero_removes_something_where_rounding_would_not() -> None:
    assert {shape.mlp for shape in allocator(align=32).allocate(Request({"mlp": 0.05}))} == {96}


def test_a_width_that_is_no_multiple_may_stay_whole() -> None:
    assert Widths(align=32).nearest("mlp", BlockShape(4, 8, 8, 100), 99.0) == 100
    assert Widths(align=32).nearest("mlp", BlockShape(4, 8, 8, 100), 97.0) == 96


def test_heads_are_aligned_by_their_joint_width() -> None:
    assert Widths(align=32).multiple("heads", BlockShape(12, 24, 24, 1)) == 4
    assert Widths(align=32).multiple("head_dims", BlockShape(12, 24, 24, 1)) == 8


def test_value_heads_keep_their_difference_to_query_heads() -> None:
    assert BlockShape(4, 16, 24, 1).having("head_dims", 8) == BlockShape(4, 8, 16, 1)


@pytest.mark.parametrize("scope", ["isomorphic", "global"])
def test_less_important_blocks_become_narrower(scope: str) -> None:
    found = allocator().allocate(Request({"heads": 0.5, "mlp": 0.5}, scope=scope), rankings())
    assert [shape.mlp for shape in found] == sorted(shape.mlp for shape in found)
    assert sum(shape.mlp for shape in found) == 256
    assert sum(shape.heads for shape in found) == 8
    assert found[0].heads == 1
    assert found[3].heads == 4


def test_competition_across_kinds_weighs_importance_against_cost() -> None:
    """A head costs as much as many units; one that matters less than they do together goes first."""
    cheap = [
        Ranking(r.block, r.kind, tuple(0.0 for _ in r.importances)) if r.kind == "heads" else r for r in rankings()
    ]
    request = Request({"heads": 0.5, "mlp": 0.5}, "params", 0.8, "global")
    spared = allocator().allocate(request, rankings())
    cut = allocator().allocate(request, cheap)
    assert sum(shape.heads for shape in cut) < sum(shape.heads for shape in spared)


@pytest.mark.parametrize("figure", ["params", "macs", "size"])
@pytest.mark.parametrize("scope", ["layer", "isomorphic", "global"])
@settings(max_examples=25)
@given(keep=st.floats(0.35, 0.95))
def test_targets_are_met_within_two_per_cent(figure: Any, scope: str, keep: float) -> None:
    found = allocator(align=2)
    request = Request({"heads": 0.5, "mlp": 0.5}, figure, keep, scope)
    shapes = found.allocate(request, rankings())
    whole = found.sizes.totals(found.dense)[figure]
    assert found.sizes.totals(shapes)[figure] / whole == pytest.approx(keep, rel=0.02)


def test_proportions_are_kept_towards_a_target() -> None:
    found = allocator(mlp=1024).allocate(Request({"head_dims": 0.25, "mlp": 0.5}, "macs", 0.6))
    removed = 1 - sum(shape.mlp for shape in found) / 4096
    assert {shape.head_dim for shape in found} == {round(8 * (1 - removed / 2))}


def test_an_impossible_target_says_what_is_possible() -> None:
    with pytest.raises(
        RecipeError, match=r"target: {params: 0.01} cannot be met .* keeps 0.\d+ \(one head and 1 units"
    ):
        allocator().allocate(Request({"heads": 0.5, "mlp": 0.5}, "params", 0.01))


def test_an_alignment_too_coarse_for_a_target_is_named() -> None:
    with pytest.raises(RecipeError, match="widths are multiples of 64, and the nearest they allow is"):
        allocator(align=64, blocks=1).allocate(Request({"mlp": 0.5}, "params", 0.9))


def test_a_target_out_of_reach_of_one_kind_is_refused_by_its_name() -> None:
    with pytest.raises(RecipeError, match="by cutting heads"):
        allocator().allocate(Request({"heads": 0.5}, "params", 0.4))


def test_what_was_cut_does_not_grow_again() -> None:
    narrowed = tuple(BlockShape(2, 8, 8, 20) for _ in range(4))
    found = allocator().below(narrowed).allocate(Request({"heads": 0.25, "mlp": 0.5}))
    assert found == narrowed


def test_units_of_equal_importance_go_evenly_from_all_blocks() -> None:
    tied = [Ranking(block, "mlp", (0.0,) * 128) for block in range(4)]
    found = allocator().allocate(Request({"mlp": 0.5}, scope="global"), tied)
    assert {shape.mlp for shape in found} == {64}


def test_a_ranking_never_falls() -> None:
    assert Ranking.of(0, "mlp", [3.0, 1.0, 5.0, 4.0]).importances == (3.0, 3.0, 5.0, 5.0)


def test_unit_costs_add_up_to_the_totals() -> None:
    model = sizes()
    shapes = shapes_of(model.layout)
    fewer = (shapes[0].having("mlp", 100), *shapes[1:])
    for figure in ("params", "macs"):
        cost = model.cost(figure, 0, shapes[0], "mlp")
        assert model.totals(shapes)[figure] - model.totals(fewer)[figure] == 28 * cost
