"""depth-pruning removes the blocks it says, keeps the config true, and lets the block before take over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.errors import DataError, RecipeError
from pah_opt.strategies.structured.config import DepthConfig
from pah_opt.strategies.structured.depth import by_position, turning
from pah_opt.strategies.structured.strategy import DepthPruning, StructuredPruning
from pah_opt.strategies.structured.takeover import runs
from pah_opt.testing import tiny_dinov2, tiny_vit

STRATEGY = DepthPruning()


@torch.no_grad()
def silence_block(model: nn.Module, bench: Any, index: int) -> None:
    """Make a block add nothing to the tokens."""
    block = bench.layout(model).blocks[index]
    for path in (block.attention.output, block.mlp.fc2):
        for parameter in model.get_submodule(path).parameters():
            parameter.zero_()


@pytest.mark.parametrize("importance", ["similarity", "contiguous"])
def test_a_block_that_does_nothing_is_found_and_its_removal_changes_nothing(
    family: Any, bench: Any, importance: str
) -> None:
    model = bench.prepared(family(blocks=4))
    silence_block(model, bench, 2)
    pruned, achieved = bench.run(
        STRATEGY, model, bench.images(model), count=1, importance=importance, repair="none"
    )  # fmt: skip
    assert achieved["removed_blocks"] == [2]
    torch.testing.assert_close(bench.logits(pruned), bench.logits(model))


def test_config_and_layout_count_the_blocks_that_are_left(bench: Any) -> None:
    pruned, achieved = bench.run(STRATEGY, tiny_vit(blocks=4), ratio=0.5)
    assert pruned.config.num_hidden_layers == 2
    assert len(bench.layout(pruned).blocks) == achieved["blocks"] == 2


def test_given_blocks_are_removed_whatever_their_importance(family: Any, bench: Any) -> None:
    model = bench.prepared(family(blocks=4))
    _, achieved = bench.run(STRATEGY, model, blocks=(0, -1))
    assert achieved["removed_blocks"] == [0, 3]
    assert achieved["importance"] == "given"


def test_a_dry_run_predicts_every_shape(family: Any, bench: Any) -> None:
    model = family(blocks=4)
    for parameters in ({"ratio": 0.5}, {"count": 3}, {"blocks": (1,)}):
        pruned, _ = bench.run(STRATEGY, model, bench.images(model), **parameters)
        assert bench.shapes(bench.dry_run(STRATEGY, model, **parameters)) == bench.shapes(pruned)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"ratio": 0.99}, "ratio: 0.99 would remove all 3 blocks"), ({"count": 3}, "count: 3 would remove all 3 blocks"),
     ({"blocks": (0, 1, -1)}, "would remove all 3 blocks"), ({"blocks": (5,)}, "there is no block 5")],
)  # fmt: skip
def test_what_leaves_no_block_or_names_none_is_refused(bench: Any, parameters: Any, message: str) -> None:
    (problem,) = bench.problems(STRATEGY, tiny_vit(blocks=3), **parameters)
    assert message in problem


@pytest.mark.parametrize("figure", ["params", "macs", "size"])
def test_a_target_is_met_by_the_number_of_blocks_that_comes_nearest(family: Any, bench: Any, figure: str) -> None:
    model = bench.prepared(family(blocks=4))
    by_count, _ = bench.run(STRATEGY, model, count=2)
    wanted = bench.amount(by_count, figure) / bench.amount(model, figure)
    pruned, achieved = bench.run(STRATEGY, model, target={figure: 1.015 * wanted})
    assert achieved["blocks"] == 2
    assert achieved["kept"][figure] == pytest.approx(wanted, abs=2e-3)
    assert bench.amount(pruned, figure) == bench.amount(by_count, figure)


def test_a_target_between_two_numbers_of_blocks_is_refused_with_both(bench: Any) -> None:
    model = tiny_vit(blocks=4)
    (problem,) = bench.problems(STRATEGY, model, target={"macs": 0.62})
    assert "target: {macs: 0.62} cannot be met within 2%" in problem
    assert "(2 of 4 blocks removed)" in problem
    assert "(1 of 4 blocks removed)" in problem
    with pytest.raises(RecipeError, match="cannot be met"):
        STRATEGY.apply(model, DepthConfig(target={"macs": 0.62}), bench.context(model))
    assert len(bench.layout(model).blocks) == 4


def test_a_target_that_the_chosen_blocks_miss_is_refused_before_any_change(bench: Any) -> None:
    """Blocks that were narrowed before differ in size; which of them matters least, only the images tell."""
    model, _ = bench.run(StructuredPruning(), tiny_vit(blocks=4, mlp=128), mlp=0.75, importance="magnitude")
    with torch.no_grad():
        wide = bench.prepared(tiny_vit(blocks=4, mlp=128))
        model.vit.layers[2] = wide.vit.layers[2]
    silence_block(model, bench, 2)
    before = bench.shapes(model)
    config = DepthConfig(target={"params": 0.79}, importance="similarity", repair="none")
    assert STRATEGY.check(model, config, bench.context(model)) == []
    with pytest.raises(RecipeError, match=r"without blocks \[2\], which matter least"):
        STRATEGY.apply(model, config, bench.context(model, calibration=bench.images(model)))
    assert bench.shapes(model) == before


@pytest.mark.parametrize(
    "parameters",
    [
        {"target": {"macs": 0.5}, "count": 1},
        {},
        {"ratio": 0.5, "count": 1},
        {"ratio": 0.0},
        {"blocks": ()},
        {"count": 0},
    ],
)
def test_wrong_parameters_are_refused(parameters: Any) -> None:
    with pytest.raises(ValueError, match=r"exactly one|at least 1|greater than"):
        DepthConfig(**parameters)


@pytest.mark.parametrize("total", range(2, 14))
def test_positions_are_distinct_and_inside(total: int) -> None:
    for count in range(1, total):
        for importance in ("even", "first", "last"):
            found = by_position(importance, total, count)
            assert len(set(found)) == count
            assert all(0 <= index < total for index in found)


def test_first_and_last_are_the_ends() -> None:
    assert by_position("first", 6, 2) == [0, 1]
    assert by_position("last", 6, 2) == [4, 5]


def test_runs_pair_each_kept_block_with_the_removed_ones_after_it() -> None:
    assert runs([0, 2, 3], 5) == [(-1, [0]), (1, [2, 3]), (4, [])]


def test_turning_is_the_angle_over_so_many_blocks(bench: Any) -> None:
    model = bench.prepared(tiny_vit(blocks=3))
    images = bench.images(model, 4)
    hidden = model(images.pixel_values if hasattr(images, "pixel_values") else next(images.batches(4)).pixel_values,
                   output_hidden_states=True).hidden_states  # fmt: skip
    context = bench.context(model, calibration=images)
    for span in (1, 2):
        found = turning(model, bench.layout(model), context, span=span, batch_size=3)
        cosines = [torch.cosine_similarity(hidden[i], hidden[i + span], dim=-1) for i in range(4 - span)]
        wanted = torch.stack([c.clamp(-1, 1).arccos().mean() / torch.pi for c in cosines])
        torch.testing.assert_close(found, wanted.double(), atol=1e-5, rtol=1e-4)


def test_without_images_it_falls_back_to_even_and_says_so(bench: Any) -> None:
    _, achieved = bench.run(STRATEGY, tiny_vit(blocks=4), count=1)
    assert (achieved["importance"], achieved["repair"]) == ("even", "none")


@pytest.mark.parametrize("importance", ["similarity", "contiguous"])
def test_missing_images_fail_before_any_change(bench: Any, importance: str) -> None:
    model = bench.prepared(tiny_vit(blocks=3))
    with pytest.raises(DataError):
        STRATEGY.apply(model, DepthConfig(count=1, importance=importance), bench.context(model))
    assert len(bench.layout(model).blocks) == 3


def test_the_block_before_takes_over_what_a_removed_block_always_adds(bench: Any) -> None:
    """Fails when LayerScale between the network and the tokens is forgotten."""
    model = bench.prepared(tiny_dinov2(blocks=3))
    layout = bench.layout(model)
    with torch.no_grad():
        silence_block(model, bench, 1)
        model.get_submodule(layout.blocks[1].mlp.fc2).bias.copy_(torch.linspace(-1, 1, layout.hidden_size))
        for name, parameter in model.named_parameters():
            if "layer_scale" in name:
                parameter.copy_(torch.linspace(0.2, 1.5, layout.hidden_size))
    images = bench.images(model, 32)
    plain, _ = bench.run(STRATEGY, model, images, blocks=(1,), repair="none")
    dense = bench.logits(model)
    for repair in ("mean", "least-squares"):
        repaired, _ = bench.run(STRATEGY, model, images, blocks=(1,), repair=repair)
        assert (bench.logits(repaired) - dense).abs().max() < 1e-3
        assert (bench.logits(plain) - dense).abs().max() > 1e-2


def test_taking_over_keeps_more_of_a_trained_model(bench: Any, trained: nn.Module, judge: Any) -> None:
    found = {
        repair: judge.divergence(bench.run(STRATEGY, trained, judge.calibration, count=1, repair=repair)[0])
        for repair in ("none", "mean", "least-squares")
    }
    assert found["least-squares"] < 0.7 * found["none"]
    assert found["mean"] < found["none"]


def test_the_first_block_can_go_though_nobody_is_before_it(family: Any, bench: Any) -> None:
    model = family(blocks=3)
    pruned, _ = bench.run(STRATEGY, model, bench.images(model), blocks=(0, 2))
    assert torch.isfinite(bench.logits(pruned)).all()
