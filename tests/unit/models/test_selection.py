from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pah_opt.models.selection import GROUPS, all_linears, select_linears, unmatched_patterns
from pah_opt.testing import tiny_timm_vit, tiny_vit

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Case


def test_everything_is_every_linear_layer_of_the_blocks_and_the_classifiers_in_order(any_case: Case) -> None:
    layout = any_case.layout
    wanted = [*layout.attention_projections, *layout.mlp_layers, *layout.classifiers]
    found = list(select_linears(any_case.model, layout))
    assert sorted(found) == sorted(wanted)
    assert found == [path for path, _ in any_case.model.named_modules() if path in wanted]


def test_groups_split_the_layers_without_rest_or_overlap(any_case: Case) -> None:
    layout = any_case.layout
    by_group = {name: set(select_linears(any_case.model, layout, include=[name])) for name in GROUPS}
    assert by_group["attention"] == by_group["qkv"] | by_group["attention-output"]
    assert not by_group["qkv"] & by_group["attention-output"]
    parts = [by_group["attention"], by_group["mlp"], by_group["classifier"]]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(all_linears(any_case.model, layout))


def test_skip_wins_over_include(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    chosen = select_linears(found.model, found.layout, include=["mlp", "*.q_proj"], skip=["vit.layers.0.*"])
    assert list(chosen) == ["vit.layers.1.attention.q_proj", "vit.layers.1.mlp.fc1", "vit.layers.1.mlp.fc2"]


def test_patterns_are_case_sensitive_globs_over_whole_paths(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit(blocks=3))
    some = select_linears(found.model, found.layout, include=["vit.layers.[02].mlp.fc?"])
    assert list(some) == [f"vit.layers.{i}.mlp.fc{j}" for i in (0, 2) for j in (1, 2)]
    assert select_linears(found.model, found.layout, include=["*.FC1"]) == {}
    assert select_linears(found.model, found.layout, include=["fc1"]) == {}


def test_unmatched_patterns_are_reported_in_order_and_groups_never_are(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_timm_vit())
    patterns = ["*.q_proj", "classifier", "blocks.*", "*.fc3"]
    assert unmatched_patterns(found.model, found.layout, patterns) == ["*.q_proj", "*.fc3"]


def test_a_backbone_has_an_empty_classifier_group(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit().vit)
    assert select_linears(found.model, found.layout, include=["classifier"]) == {}
    assert unmatched_patterns(found.model, found.layout, ["classifier"]) == []


@pytest.mark.parametrize("name", GROUPS)
def test_every_group_is_documented(name: str) -> None:
    from pah_opt.models import selection

    assert f"``{name}``" in (selection.__doc__ or "")
