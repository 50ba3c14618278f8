"""On a model that was really trained, the closed-form repair keeps what plain pruning destroys."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.strategies.structured.strategy import StructuredPruning

STRATEGY = StructuredPruning()


@pytest.fixture(scope="module")
def pruned(bench: Any, trained: nn.Module, digits: Any) -> Any:
    """Prune the trained model once for each way that is asked for."""
    calibration = digits.train.subset(range(256))
    made: dict[Any, nn.Module] = {}

    def make(**parameters: Any) -> nn.Module:
        key = tuple(sorted((name, str(value)) for name, value in parameters.items()))
        if key not in made:
            made[key] = bench.run(STRATEGY, trained, calibration, **parameters)[0]
        return made[key]

    return make


def test_the_dense_model_learned_the_digits(judge: Any, trained: nn.Module) -> None:
    assert judge.accuracy(trained) > 94


@pytest.mark.parametrize("shares", [{"mlp": 0.85}, {"heads": 0.5}, {"heads": 0.5, "mlp": 0.85}])
def test_least_squares_keeps_more_than_no_repair(judge: Any, pruned: Any, shares: dict[str, float]) -> None:
    none, linear = (
        judge.divergence(pruned(importance="magnitude", repair=repair, **shares))
        for repair in ("none", "least-squares")
    )
    assert linear < 0.7 * none


def test_the_mean_of_removed_heads_is_worth_keeping_and_their_linear_part_more(judge: Any, pruned: Any) -> None:
    none, mean, linear = (
        judge.divergence(pruned(importance="magnitude", repair=repair, heads=0.5))
        for repair in ("none", "mean", "least-squares")
    )
    assert linear < mean < none


def test_choosing_by_what_cannot_be_repaired_is_better_than_by_magnitude(judge: Any, pruned: Any) -> None:
    ours = judge.divergence(pruned(importance="surgeon", mlp=0.85))
    theirs = judge.divergence(pruned(importance="magnitude", repair="least-squares", mlp=0.85))
    assert ours < 0.8 * theirs


def test_half_the_macs_go_without_a_loss_of_accuracy(judge: Any, trained: nn.Module, pruned: Any) -> None:
    dense = judge.accuracy(trained)
    assert judge.accuracy(pruned(target={"macs": 0.5}, scope="global")) > dense - 1.5
    plain = pruned(target={"macs": 0.5}, importance="magnitude", repair="none")
    assert judge.accuracy(plain) < dense - 5


def test_data_makes_narrow_heads_better(judge: Any, pruned: Any) -> None:
    ours = judge.divergence(pruned(head_dims=0.75))
    blind = judge.divergence(pruned(head_dims=0.75, importance="magnitude", repair="none"))
    assert ours < 0.5 * blind


def test_narrow_heads_in_the_best_basis_beat_leaving_out_whole_heads(judge: Any, pruned: Any) -> None:
    assert judge.divergence(pruned(head_dims=0.5)) < judge.divergence(pruned(heads=0.5))


def test_blocks_that_compete_keep_more_than_blocks_cut_alike(judge: Any, pruned: Any) -> None:
    alike = judge.divergence(pruned(target={"macs": 0.5}))
    competing = judge.divergence(pruned(target={"macs": 0.5}, scope="global"))
    assert competing < alike


def test_later_blocks_are_repaired_on_what_the_pruned_ones_before_produce(
    bench: Any, trained: nn.Module, judge: Any
) -> None:
    """Each block's new bias makes up for the mean of its own inputs, not of the dense model's.

    Without a focus, so that the mean is the plain one over all tokens that is taken here.
    """
    from pah_opt.models.calibration import collect_inputs_covariance

    options = {"mlp": 0.5, "repair": "mean", "importance": "magnitude", "focus": "none"}
    pruned, _ = bench.run(STRATEGY, trained, judge.calibration, **options)
    layout = bench.layout(pruned)
    path = layout.blocks[-1].mlp.fc2
    seen = collect_inputs_covariance(pruned, layout, [path], judge.calibration)[path]
    kept = pruned.get_submodule(path)
    # The last network's mean output is what all its units would give on these very inputs.
    dense = trained.get_submodule(path)
    fc1 = layout.blocks[-1].mlp.fc1
    reads = collect_inputs_covariance(pruned, layout, [fc1], judge.calibration)[fc1]
    assert reads.count == seen.count
    rows = torch.cat(_inputs(pruned, fc1, judge))
    hidden = nn.functional.gelu(trained.get_submodule(fc1)(rows))
    wanted = dense(hidden).mean(0)
    torch.testing.assert_close(kept(seen.mean.float()), wanted, atol=2e-3, rtol=2e-3)


@torch.no_grad()
def _inputs(model: nn.Module, path: str, judge: Any) -> list[torch.Tensor]:
    from pah_opt.models.calibration import watching_inputs

    found: list[torch.Tensor] = []
    module = {path: model.get_submodule(path)}
    with watching_inputs(module, lambda _path, tensor: found.append(tensor.flatten(0, -2))):
        for pixels, _ in judge.calibration.batches(64):
            model(pixels)
    return found
