from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import Field
from torch import nn

from pah_opt.environment import Environment
from pah_opt.errors import RecipeError
from pah_opt.models import find_adapter
from pah_opt.optimizer import OptimizerConfig
from pah_opt.registry import Registry, validate
from pah_opt.search import Budget, Space, as_space, space_presets
from pah_opt.search.bound import BoundSpace
from pah_opt.search.parameters import parameter
from pah_opt.testing import tiny_vit

PER_BLOCK = "{use: torchao, with: {scheme: int8-dynamic, per_layer: {per: block, choices: [float, int8-dynamic]}}}"


def bound(text: str, model: nn.Module, registry: Registry) -> BoundSpace:
    layout = find_adapter(model, registry.adapters).layout(model)
    return BoundSpace.of(Space.from_yaml(text), registry, model, layout)


def test_types_and_ranges_come_from_the_strategys_config(model: nn.Module, registry: Registry) -> None:
    space = bound(
        """
        steps:
          - use: structured-pruning
            with: {mlp: {high: 0.5}, iterative_steps: {low: 1, high: 4}, importance: {any: true}, target: null}
          - {use: torchao, optional: true, with: {per_layer: {per: block, choices: [float, int8-dynamic]}}}
        """,
        model, registry,
    )  # fmt: skip
    found = {each.name: each for each in space.parameters}
    assert (found["1.structured-pruning.mlp"].kind, found["1.structured-pruning.mlp"].low) == ("float", 0.0)
    assert found["1.structured-pruning.iterative_steps"].kind == "int"
    assert "taylor" in found["1.structured-pruning.importance"].choices
    assert found["2.torchao"].choices == (False, True)
    blocks = [name for name in found if name.startswith("2.torchao.per_layer.")]
    assert len(blocks) == 2, "one choice for each block"


def test_every_recipe_made_is_valid_and_leaves_out_what_was_not_chosen(model: nn.Module, registry: Registry) -> None:
    space = bound(
        """
        steps:
          - {use: magnitude-pruning, optional: true, with: {sparsity: {low: 0.1, high: 0.9, step: 0.2}}}
          - {use: torchao, with: {scheme: int8-weight-only, per_layer: {mlp: {choices: [float, int8-weight-only]}}}}
        """,
        model, registry,
    )  # fmt: skip
    assert space.size == 2 * 5 * 2
    generator = random.Random(0)
    seen = set()
    values = space.at_random(generator)
    for _ in range(40):
        recipe = space.recipe(values, "made")
        assert recipe is not None
        validate(recipe, registry, environment=Environment())
        assert (recipe.steps[0].use == "magnitude-pruning") == ("1.magnitude-pruning.sparsity" in values)
        seen.add(recipe.sha256)
        values = space.neighbour(values, generator)
    assert len(seen) > 6


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("{use: magnitude-prunning}", r"line 2.*there is no strategy.*did you mean 'magnitude-pruning'"),
        ("{use: magnitude-pruning, with: {sparsity: {low: 0.5, high: 1.5}}}", r"line 2.*got 1\.5.*number > 0 and < 1"),
        ("{use: magnitude-pruning, with: {sparsty: {low: 0.5, high: 0.6}}}", "there is no such parameter"),
        ("{use: magnitude-pruning, with: {sparsity: {low: 0.6, high: 0.5}}}", r"low is 0\.6, above high, 0\.5"),
        ("{use: magnitude-pruning, with: {sparsity: {choices: []}}}", "at least one value"),
        ("{use: magnitude-pruning, with: {sparsity: {low: 0.1, hihg: 0.5}}}", "there is no 'hihg' in a choice"),
        ("{use: magnitude-pruning, with: {sparsity: {low: 0, high: 0.5, log: true}}}", "must begin above 0"),
        (
            "{use: depth-pruning, with: {count: {low: 1, high: 3, step: 0.5}}}",
            r"step is 0\.5; .*takes whole",
        ),
        ("{use: torchao, with: {scheme: {low: 1, high: 2}}}", "a range needs a number"),
        ("{use: magnitude-pruning, with: {sparsity: {low: 0.1, high: 0.5, log: 'no'}}}", r'log is the text "no"'),
        ("{use: magnitude-pruning, with: {sparsity: {choices: [0.1], low: 0.1}}}", "this one has choices and low and"),
        ("{use: magnitude-pruning, with: {sparsity: {any: false}}}", "any is false; allowed: true"),
        ("{use: torchao, with: {per_layer: {per: block}}}", "this one has none of them"),
        ("{use: torchao, with: {scheme: {any: true, log: true}}}", "log and step are for ranges"),
        ("{use: torchao, with: {scheme: {per: block, choices: [int8-dynamic]}}}", "maps layer patterns to values"),
        ("{use: torchao, with: {scheme: {choices: [int8-dinamic, int8-dynamic]}}}", "did you mean 'int8-dynamic'"),
        ("{use: torchao}", "holds a single recipe"),
        (
            f"{{use: depth-pruning, with: {{count: 1}}}}\n  - {PER_BLOCK}",
            r"line 3.*step 1 \(depth-pruning\) leaves no such block.*leave out depth-pruning",
        ),
        (
            f"{{use: fused-qkv, optional: true}}\n  - {PER_BLOCK.replace('block', 'layer')}",
            r"line 3.*step 1 \(fused-qkv\) leaves no such layer",
        ),
    ],
)
def test_what_is_wrong_with_a_space_is_said_with_its_line(
    step: str, said: str, model: nn.Module, registry: Registry
) -> None:
    with pytest.raises(RecipeError, match=f"(?s){said}"):
        bound(f"steps:\n  - {step}\n", model, registry)


class Rounds(OptimizerConfig):
    """Whole numbers with ends that may not be reached."""

    rounds: int = Field(1, gt=0, lt=9)


@pytest.mark.parametrize(("spec", "ends"), [({"any": True}, (1, 8)), ({"high": 4}, (1, 4)), ({"low": 3}, (3, 8))])
def test_a_range_of_whole_numbers_ends_at_the_next_where_its_limit_may_not_be_reached(
    spec: dict[str, Any], ends: tuple[int, int]
) -> None:
    found = parameter("rounds", 0, ("rounds",), spec, Rounds.model_json_schema())
    assert (found.kind, found.low, found.high) == ("int", *ends)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{steps: [{use: torchao}], budget: {minimise: size, top1_drop: 1}}", "did you mean 'top1_drop_pp'"),
        ("steps: []", "at least 1"), ("stepz: [{use: torchao}]", "did you mean 'steps'"), ("&a steps: 1", "anchors"),
        ("- torchao\n", "a recipe is a mapping"), ("no-such-space", "unknown search space"),
    ],
)  # fmt: skip
def test_what_is_no_space_is_refused(text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        as_space(text)


@pytest.mark.parametrize("name", ["small", "fast-cpu", "wide"])
def test_presets_fit_a_model_and_their_middle_is_a_valid_recipe(name: str, registry: Registry) -> None:
    model = tiny_vit(blocks=4)
    space = BoundSpace.of(space_presets()[name], registry, model,
                          find_adapter(model, registry.adapters).layout(model))  # fmt: skip
    recipe = space.recipe(space.choose(lambda each: each.at(0.5)), name)
    assert recipe is not None
    validate(recipe, registry, environment=Environment())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"latency_ms": 3, "speedup_x": 2}, "limit the same figure"),
        ({"file_mb": 0}, "> 0"), ({"top1_drop_pp": -1}, ">= 0"), ({"minimise": "weight"}, "latency, size"),
        ({"file_md": 3}, "did you mean 'file_mb'"),
    ],
)  # fmt: skip
def test_contradictory_and_meaningless_limits_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Budget(**given)


@pytest.mark.parametrize(("given", "kept"), [({"speedup_x": 2}, {"speedup_x"}), ({"latency_ms": 4}, {"latency_ms"}),
                                             ({"macs": 5}, {"latency_ms", "macs"})])  # fmt: skip
def test_a_limit_that_is_given_counts_instead_of_the_spaces_own(given: dict[str, Any], kept: set[str]) -> None:
    budget = Budget.of(given, Budget(latency_ms=9, file_mb=30, minimise="size"))
    assert (budget.minimise, budget.file_mb) == ("size", 30)
    named = {
        name: value for name in ("latency_ms", "speedup_x", "macs") if (value := getattr(budget, name)) is not None
    }
    assert set(named) == kept
    assert named.items() >= given.items()


def test_limits_become_gates_and_excess_is_counted_as_a_share() -> None:
    budget = Budget(file_mb=2, speedup_x=2, top1_drop_pp=0)
    assert budget.limits()["artifact_bytes"].max == 2e6
    assert budget.limits()["speedup_p50_x"].min == 2
    missed = budget.excess({"artifact_bytes": 3e6, "speedup_p50_x": 1.5, "top1_drop_pp": 0.5, "macs": 1e12})
    assert missed == {"artifact_bytes": 0.5, "speedup_p50_x": 0.25, "top1_drop_pp": 0.5}
