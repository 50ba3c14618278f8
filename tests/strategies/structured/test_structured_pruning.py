"""structured-pruning keeps every attribute true, removes what it says, and changes nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

import pah_opt
from pah_opt.errors import DataError, RecipeError
from pah_opt.strategies.structured.config import StructuredConfig
from pah_opt.strategies.structured.strategy import StructuredPruning
from pah_opt.testing import tiny_dinov2, tiny_vit

STRATEGY = StructuredPruning()


@torch.no_grad()
def silence(model: nn.Module, bench: Any, *, heads: int = 0, dims: int = 0, units: int = 0) -> None:
    """Zero everything that belongs to the first heads, the first dimensions of every head, and the last units."""
    from pah_opt.strategies.structured.weights import projections

    for block in bench.layout(model).blocks:
        attention, mlp = block.attention, block.mlp
        for rows in projections(model, attention):
            mask = torch.zeros(attention.num_heads, attention.head_dim, dtype=torch.bool)
            mask[:heads] = True
            mask[:, :dims] = True
            rows.weight[mask.flatten()] = 0
            rows.bias[mask.flatten()] = 0
            gone = mask.flatten()
        model.get_submodule(attention.output).weight[:, gone] = 0
        last = slice(mlp.width - units, mlp.width)
        for path in (mlp.fc1, mlp.gate):
            if path is not None:
                model.get_submodule(path).weight[last] = 0
                model.get_submodule(path).bias[last] = 0
        model.get_submodule(mlp.fc2).weight[:, last] = 0


@torch.no_grad()
def silence_block_zero_further(model: nn.Module) -> None:
    model.get_submodule("vit.layers.0.mlp.fc1").weight[:48] *= 0.01
    model.get_submodule("vit.layers.0.mlp.fc2").weight[:, :48] *= 0.01


def test_removing_silent_heads_and_units_leaves_logits_unchanged(family: Any, bench: Any) -> None:
    model = bench.prepared(family())
    silence(model, bench, heads=2, units=16)
    pruned, achieved = bench.run(STRATEGY, model, heads=0.5, mlp=0.25, importance="magnitude")
    layout = bench.layout(pruned)
    assert {block.attention.num_heads for block in layout.blocks} == {2}
    assert {block.mlp.width for block in layout.blocks} == {bench.layout(model).blocks[0].mlp.width * 3 // 4}
    assert achieved["removed"]["heads"] == 0.5
    torch.testing.assert_close(bench.logits(pruned), bench.logits(model), atol=1e-5, rtol=1e-5)


def test_removing_silent_head_dimensions_leaves_logits_unchanged(family: Any, bench: Any) -> None:
    """Fails when head_dim or the scale of the scores is left stale."""
    model = bench.prepared(family())
    silence(model, bench, dims=4)
    pruned, _ = bench.run(STRATEGY, model, head_dims=0.5, importance="magnitude")
    assert {block.attention.head_dim for block in bench.layout(pruned).blocks} == {4}
    torch.testing.assert_close(bench.logits(pruned), bench.logits(model), atol=1e-5, rtol=1e-4)


def test_repair_of_silent_parts_leaves_logits_unchanged(family: Any, bench: Any) -> None:
    model = bench.prepared(family())
    silence(model, bench, heads=2, dims=4, units=16)
    images = bench.images(model, 64)
    pruned, achieved = bench.run(STRATEGY, model, images, heads=0.5, head_dims=0.5, mlp=0.25)
    assert (achieved["importance"], achieved["repair"]) == ("surgeon", "least-squares")
    torch.testing.assert_close(bench.logits(pruned), bench.logits(model), atol=2e-3, rtol=2e-3)


def test_torch_prunings_graph_does_the_cutting_in_every_family(family: Any, bench: Any) -> None:
    _, achieved = bench.run(STRATEGY, family(), heads=0.25, mlp=0.5)
    assert achieved["cut_by"] == "torch-pruning's dependency graph"


@pytest.mark.parametrize(
    "parameters",
    [{"heads": 0.5}, {"mlp": 0.5}, {"head_dims": 0.25}, {"heads": 0.25, "head_dims": 0.5, "mlp": 0.5},
     {"target": {"macs": 0.6}}, {"target": {"params": 0.7}, "mlp": 0.5},
     {"heads": 0.5, "mlp": 0.5, "iterative_steps": 3}],
)  # fmt: skip
def test_a_dry_run_predicts_every_shape(family: Any, bench: Any, parameters: dict[str, Any]) -> None:
    model = family(blocks=3)
    pruned, _ = bench.run(STRATEGY, model, **parameters)
    assert bench.shapes(bench.dry_run(STRATEGY, model, **parameters)) == bench.shapes(pruned)


def test_blocks_can_have_widths_of_their_own(family: Any, bench: Any) -> None:
    model = bench.prepared(family())
    before = bench.layout(model).blocks
    first, last = before[0].path, before[-1].path
    parameters = {"mlp": 0.25, "heads_per_block": {f"{last}.*": 0.5}, "mlp_per_block": {"*": 0.5, first: 0.0}}
    pruned, achieved = bench.run(STRATEGY, model, importance="magnitude", **parameters)
    after = bench.layout(pruned).blocks
    assert [b.attention.num_heads for b in after] == [b.attention.num_heads for b in before[:-1]] + [2]
    assert [b.mlp.width for b in after] == [before[0].mlp.width] + [b.mlp.width // 2 for b in before[1:]]
    assert achieved["mlp_per_block"] == {"*": 0.5, first: 0.0}
    assert bench.shapes(bench.dry_run(STRATEGY, model, **parameters)) == bench.shapes(pruned)


def test_widths_of_single_blocks_are_reached_in_steps_too(bench: Any) -> None:
    model = bench.prepared(tiny_vit())
    path = bench.layout(model).blocks[1].path
    pruned, _ = bench.run(STRATEGY, model, mlp_per_block={path: 0.5}, iterative_steps=2, importance="magnitude")
    widths = [block.mlp.width for block in bench.layout(model).blocks]
    assert [block.mlp.width for block in bench.layout(pruned).blocks] == [
        width // 2 if index == 1 else width for index, width in enumerate(widths)
    ]


def test_a_block_pattern_that_matches_nothing_is_refused(bench: Any) -> None:
    (problem,) = bench.problems(STRATEGY, tiny_vit(), mlp_per_block={"vit.layer.0": 0.5})
    assert "with.mlp_per_block: 'vit.layer.0' matches no block" in problem
    assert "such as 'vit.layers.0.*'" in problem


def test_a_share_that_would_remove_every_head_of_one_block_is_refused(bench: Any) -> None:
    (problem,) = bench.problems(STRATEGY, tiny_vit(heads=4), heads_per_block={"vit.layers.1.*": 0.95})
    assert "would remove all 4 heads of block 1" in problem


@pytest.mark.parametrize("scope", ["global", "isomorphic"])
def test_a_dry_run_predicts_totals_of_scopes_that_compare_blocks(bench: Any, scope: str) -> None:
    model = tiny_vit(blocks=4, mlp=64)
    silence(model, bench, units=8)
    silence_block_zero_further(model)
    pruned, achieved = bench.run(STRATEGY, model, scope=scope, heads=0.25, mlp=0.5, align=4)
    planned = bench.layout(bench.dry_run(STRATEGY, model, scope=scope, heads=0.25, mlp=0.5, align=4))
    for layout in (bench.layout(pruned), planned):
        assert sum(block.attention.num_heads for block in layout.blocks) == 12
        assert sum(block.mlp.width for block in layout.blocks) == 128
    assert len(set(achieved["mlp_widths"])) > 1


@pytest.mark.parametrize("figure", ["params", "macs", "size"])
@pytest.mark.parametrize("scope", ["layer", "isomorphic", "global"])
@pytest.mark.parametrize("keep", [0.4, 0.75])
def test_a_target_is_met_within_two_per_cent(bench: Any, figure: str, scope: str, keep: float) -> None:
    model = tiny_vit(blocks=3, hidden=48, mlp=192)
    images = bench.images(model)
    pruned, achieved = bench.run(STRATEGY, model, images, scope=scope, target={figure: keep}, importance="activation")
    assert achieved["kept"][figure] == pytest.approx(keep, rel=0.02)
    if figure == "params":
        count = sum(p.numel() for p in pruned.parameters()) / sum(p.numel() for p in model.parameters())
        assert achieved["kept"]["params"] == pytest.approx(count, abs=1e-3)


@pytest.mark.parametrize("keep", [0.85, 0.75, 0.66, 0.5])
def test_a_target_between_two_numbers_of_heads_is_met_by_the_mlp(keep: float) -> None:
    """Cut alike, all twelve blocks lose a head at once: 0.75 was missed by 3 % on a ViT-S."""
    with torch.device("meta"):
        shape = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "num_hidden_layers": 12}
        model = ViTForImageClassification(ViTConfig(num_labels=10, **shape)).eval()
    recipe = pah_opt.Recipe(steps=(pah_opt.Step.of("structured-pruning", target={"macs": keep}, scope="global"),))
    planned = pah_opt.plan(model, recipe)
    assert planned.steps[0].figures.macs / planned.before.macs == pytest.approx(keep, rel=0.002)


def test_macs_kept_are_those_that_torch_counts(family: Any, bench: Any) -> None:
    model = bench.prepared(family())
    pruned, achieved = bench.run(STRATEGY, model, heads=0.5, head_dims=0.5, mlp=0.5)
    assert achieved["kept"]["macs"] == pytest.approx(
        bench.amount(pruned, "macs") / bench.amount(model, "macs"), abs=2e-3
    )


def test_a_target_that_cannot_be_met_says_what_can(bench: Any) -> None:
    (problem,) = bench.problems(STRATEGY, tiny_vit(), target={"params": 0.02})
    assert "the narrowest this step can make the model keeps" in problem
    model = bench.prepared(tiny_vit())
    with pytest.raises(RecipeError, match="cannot be met within 2%"):
        STRATEGY.apply(model, StructuredConfig(target={"params": 0.02}), bench.context(model))
    assert bench.shapes(model) == bench.shapes(tiny_vit())


def test_a_ratio_that_would_remove_every_head_is_refused(bench: Any) -> None:
    (problem,) = bench.problems(STRATEGY, tiny_vit(heads=4), heads=0.9)
    assert "heads: 0.9 would remove all 4 heads of block 0; at most 0.75" in problem


def test_an_alignment_that_leaves_nothing_to_remove_is_refused(bench: Any) -> None:
    (problem,) = bench.problems(STRATEGY, tiny_vit(mlp=64), mlp=0.5, context_align=64)
    assert "mlp: 0.5 can remove nothing from the 64 hidden units of block 0" in problem
    assert "align: 1" in problem


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({}, "nothing to remove"), ({"heads": 1.0}, "less than 1"), ({"mlp": -0.1}, "greater than or equal to 0"),
     ({"target": {"macs": 0.5, "size": 0.5}}, "exactly one"), ({"target": {"macs": 1.5}}, "less than 1"),
     ({"head": 0.5}, "Extra inputs"), ({"mlp": 0.5, "importance": "magic"}, "Input should be"),
     ({"mlp_per_block": {"*": 1.5}}, "less than 1"), ({"mlp_per_block": {"*": 0.0}}, "nothing to remove"),
     ({"mlp_per_block": {"*": 0.5}, "target": {"macs": 0.5}}, "and so does a target; leave one out"),
     ({"heads_per_block": {"*": 0.5}, "scope": "global"}, "and so does scope: global; leave one out")],
)  # fmt: skip
def test_wrong_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StructuredConfig(**parameters)


def test_widths_are_multiples_of_what_later_steps_need(bench: Any) -> None:
    model = tiny_vit(hidden=64, heads=4, mlp=200)
    _, achieved = bench.run(STRATEGY, model, align=32, heads=0.25, mlp=0.4)
    assert set(achieved["mlp_widths"]) == {128}
    assert set(achieved["heads"]) == {2}
    assert achieved["align"] == 32


def test_an_explicit_alignment_overrides_what_later_steps_need(bench: Any) -> None:
    model = bench.prepared(tiny_vit(mlp=72))
    context = bench.context(model, align=32)
    STRATEGY.apply(model, StructuredConfig(mlp=0.5, align=4), context)
    achieved = context.achieved
    assert achieved["mlp_widths"] == [36, 36]


def test_pruning_keeps_frozen_parameters_frozen(bench: Any) -> None:
    """torch-pruning makes new parameters, which always want gradients."""
    model = tiny_vit().requires_grad_(requires_grad=False)
    model.classifier.requires_grad_(requires_grad=True)
    pruned, _ = bench.run(STRATEGY, model, heads=0.25, head_dims=0.25, mlp=0.5)
    wanted = {name for name, parameter in pruned.named_parameters() if parameter.requires_grad}
    assert wanted == {"classifier.weight", "classifier.bias"}


def test_nothing_is_left_behind_on_the_model(bench: Any) -> None:
    model = tiny_dinov2()
    images = bench.images(model)
    for importance in ("taylor", "activation", "surgeon"):
        pruned, _ = bench.run(STRATEGY, model, images, scope="global", importance=importance, heads=0.25, mlp=0.5)
        assert all(parameter.grad is None for parameter in pruned.parameters())
        assert all(parameter.is_leaf for parameter in pruned.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in pruned.modules())


IMPORTANCES = ["magnitude", "l1", "l2", "random", "lamp", "activation", "taylor", "hessian", "surgeon"]


@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_every_importance_works_in_every_family(family: Any, bench: Any, importance: str, scope: str) -> None:
    model = family()
    images = bench.images(model, 8)
    pruned, achieved = bench.run(STRATEGY, model, images, scope=scope, importance=importance, heads=0.25, mlp=0.5)
    assert achieved["importance"] == importance
    assert achieved["removed"]["mlp"] == pytest.approx(0.5, abs=0.02)
    assert torch.isfinite(bench.logits(pruned)).all()


def test_the_same_seed_gives_the_same_model(bench: Any) -> None:
    model = tiny_vit()
    images = bench.images(model)
    options = {"scope": "global", "heads": 0.25, "mlp": 0.5}
    first, second = (bench.run(STRATEGY, model, images, seed=3, **options)[0] for _ in range(2))
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name)), name
    other, _ = bench.run(STRATEGY, model, seed=1, importance="random", mlp=0.5)
    again, _ = bench.run(STRATEGY, model, seed=2, importance="random", mlp=0.5)
    assert not torch.equal(bench.logits(other), bench.logits(again))


def test_labels_beyond_the_classes_are_refused(bench: Any) -> None:
    model = bench.prepared(tiny_vit(classes=2))
    images = bench.images(tiny_vit(classes=10))
    config = StructuredConfig(mlp=0.5, importance="taylor", repair="none")
    with pytest.raises(DataError, match=r"labels of .* go from 0 to 9; the model knows 0 to 1"):
        STRATEGY.apply(model, config, bench.context(model, calibration=images))


def test_eight_calibration_images_are_enough_to_run(bench: Any) -> None:
    model = tiny_vit()
    pruned, _ = bench.run(STRATEGY, model, bench.images(model, 8), heads=0.25, head_dims=0.5, mlp=0.5)
    assert torch.isfinite(bench.logits(pruned)).all()


def test_needs_follow_importance_and_repair() -> None:
    def needs(**parameters: Any) -> tuple[bool, bool, bool]:
        found = STRATEGY.needs(StructuredConfig(mlp=0.5, **parameters))
        return found.calibration, found.labels, found.optional_calibration

    assert needs() == (False, False, True)
    assert needs(importance="magnitude", repair="none") == (False, False, False)
    assert needs(importance="taylor", repair="none") == (False, True, False)
    assert needs(importance="surgeon") == (True, False, True)
    assert needs(importance="magnitude", repair="mean") == (True, False, False)


def test_without_images_it_says_that_nothing_was_repaired(bench: Any) -> None:
    _, achieved = bench.run(STRATEGY, tiny_vit(), mlp=0.5)
    assert (achieved["importance"], achieved["repair"]) == ("magnitude", "none")
    assert "no calibration images" in achieved["note"]


def test_importing_the_plugin_loads_neither_torch_nor_torch_pruning() -> None:
    import subprocess
    import sys

    code = (
        "import sys, pah_opt.strategies.structured as s\n"
        "for o in s.pah_opt_optimizers(): o.config_type.model_json_schema()\n"
        "sys.exit(bool({'torch', 'torch_pruning'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
