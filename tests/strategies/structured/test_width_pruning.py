"""width-pruning cuts the embedding out of every layer and parameter it runs through."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pah_opt.errors import DataError, UnsupportedModelError
from pah_opt.strategies.structured import width
from pah_opt.strategies.structured.config import WidthConfig
from pah_opt.strategies.structured.strategy import WidthPruning
from pah_opt.strategies.structured.width import cut_embedding, stream_layers
from pah_opt.testing import tiny_dinov2, tiny_vit

STRATEGY = WidthPruning()


def sliced_by_hand(model: nn.Module, bench: Any, kept: Tensor) -> nn.Module:
    """Slice every parameter of a copy by its name and shape, with no graph and no layout."""
    model, layout = copy.deepcopy(model), bench.layout(model)
    sides = stream_layers(layout) | dict.fromkeys(layout.classifiers, "in")
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            side = sides.get(path) if isinstance(module, (nn.Linear, nn.Conv2d)) else "last"
            setattr(module, name, nn.Parameter(sliced(parameter.detach(), side, layout.hidden_size, kept)))
        if isinstance(module, nn.LayerNorm):
            module.normalized_shape = (len(kept),)
    bench.context(model).adapter.sync(model)
    return model


def sliced(values: Tensor, side: str | None, hidden: int, kept: Tensor) -> Tensor:
    if side == "out":
        return values[kept]
    if side is None or values.shape[-1] % hidden or (side == "in" and values.ndim == 1):
        return values
    return values.reshape(*values.shape[:-1], -1, hidden)[..., kept].flatten(-2)


@pytest.mark.parametrize("width", [8, 24])
def test_the_cut_is_the_same_slice_of_every_parameter(family: Any, bench: Any, width: int) -> None:
    """8 of 32: torch-pruning would shuffle the norms, since it iterates over a small set of large numbers."""
    model = bench.prepared(family())
    kept = torch.randperm(32, generator=torch.Generator().manual_seed(0))[:width].sort().values
    wanted = bench.logits(sliced_by_hand(model, bench, kept))
    context = bench.context(model)
    cut_embedding(model, bench.layout(model), kept, context)
    context.adapter.sync(model)
    assert context.adapter.disagreements(model) == []
    assert bench.layout(model).hidden_size == width
    torch.testing.assert_close(bench.logits(model), wanted, atol=1e-5, rtol=1e-5)


def test_heads_and_networks_keep_their_widths(family: Any, bench: Any) -> None:
    model = bench.prepared(family())
    pruned, achieved = bench.run(STRATEGY, model, ratio=0.25)
    before, after = bench.layout(model), bench.layout(pruned)
    assert achieved["hidden_size"] == after.hidden_size == 24
    assert [b.attention.num_heads for b in after.blocks] == [b.attention.num_heads for b in before.blocks]
    assert [b.attention.head_dim for b in after.blocks] == [b.attention.head_dim for b in before.blocks]
    assert [b.mlp.width for b in after.blocks] == [b.mlp.width for b in before.blocks]


def test_a_dry_run_predicts_every_shape(family: Any, bench: Any) -> None:
    model = family()
    for calibration in (None, bench.images(model)):
        pruned, _ = bench.run(STRATEGY, model, calibration, ratio=0.5)
        assert bench.shapes(bench.dry_run(STRATEGY, model, ratio=0.5)) == bench.shapes(pruned)


def test_tokens_that_the_forward_pass_leaves_out_are_cut_too(bench: Any) -> None:
    pruned, _ = bench.run(STRATEGY, tiny_dinov2(), ratio=0.5)
    assert pruned.dinov2.embeddings.mask_token.shape == (1, 16)


@pytest.mark.parametrize("importance", ["magnitude", "l1", "l2", "random", "activation", "taylor", "hessian"])
def test_every_importance_works_in_every_family(family: Any, bench: Any, importance: str) -> None:
    model = family()
    pruned, achieved = bench.run(STRATEGY, model, bench.images(model), ratio=0.25, importance=importance)
    assert achieved["importance"] == importance
    assert torch.isfinite(bench.logits(pruned)).all()


def test_channels_that_nobody_writes_go_first(bench: Any) -> None:
    model = bench.prepared(tiny_vit())
    with torch.no_grad():
        for path, side in stream_layers(bench.layout(model)).items():
            layer = model.get_submodule(path)
            (layer.weight if side == "out" else layer.weight.T)[:16] *= 1e-3
    pruned, _ = bench.run(STRATEGY, model, ratio=0.5, importance="magnitude")
    assert torch.equal(pruned.vit.embeddings.cls_token, model.vit.embeddings.cls_token[..., 16:])


@pytest.mark.parametrize("importance", ["taylor", "hessian"])
def test_channels_without_effect_on_the_loss_go_first_however_large(bench: Any, importance: str) -> None:
    """What writes them is large; nothing reads them."""
    model = bench.prepared(tiny_vit())
    with torch.no_grad():
        for path, side in stream_layers(bench.layout(model)).items():
            layer = model.get_submodule(path)
            if side == "in":
                layer.weight[:, ::2] = 0
            else:
                layer.weight[::2] *= 10
    pruned, _ = bench.run(STRATEGY, model, bench.images(model), ratio=0.5, importance=importance, repair="none")
    assert torch.equal(pruned.vit.embeddings.cls_token, model.vit.embeddings.cls_token[..., 1::2])
    assert all(parameter.grad is None for parameter in pruned.parameters())


def test_the_width_is_a_multiple_of_what_later_steps_need(bench: Any) -> None:
    _, achieved = bench.run(STRATEGY, tiny_vit(), ratio=0.4, align=8)
    assert achieved["hidden_size"] == 16


@pytest.mark.parametrize("figure", ["params", "macs", "size"])
def test_a_target_is_met_within_two_per_cent(family: Any, bench: Any, figure: str) -> None:
    model = bench.prepared(family(hidden=64))
    pruned, achieved = bench.run(STRATEGY, model, target={figure: 0.7})
    share = bench.amount(pruned, figure) / bench.amount(model, figure)
    assert share == pytest.approx(0.7, rel=0.02)
    assert achieved["kept"][figure] == pytest.approx(share, abs=2e-3)


def test_a_target_between_two_widths_is_refused_with_both(bench: Any) -> None:
    model = tiny_vit()
    (problem,) = bench.problems(STRATEGY, model, target={"params": 0.65}, context_align=16)
    assert "target: {params: 0.65} cannot be met within 2%" in problem
    assert "(16 of 32 channels)" in problem
    (problem,) = bench.problems(STRATEGY, model, target={"params": 0.01})
    assert "(1 of 32 channels)" in problem


def test_ratio_and_target_exclude_one_another() -> None:
    for parameters in ({}, {"ratio": 0.5, "target": {"macs": 0.5}}):
        with pytest.raises(ValueError, match="exactly one of ratio and target"):
            WidthConfig(**parameters)


@pytest.mark.parametrize(("ratio", "align"), [(0.9, 32), (0.99, 8), (0.99, 1)])
def test_a_ratio_that_leaves_nothing_is_refused(bench: Any, ratio: float, align: int) -> None:
    (problem,) = bench.problems(STRATEGY, tiny_vit(), ratio=ratio, context_align=align)
    assert f"ratio: {ratio} leaves 0 of the 32 channels" in problem


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, float("nan")])
def test_wrong_ratios_are_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio"):
        WidthConfig(ratio=ratio)


def test_pruning_keeps_frozen_parameters_frozen(bench: Any) -> None:
    model = tiny_dinov2().requires_grad_(requires_grad=False)
    model.classifier.requires_grad_(requires_grad=True)
    pruned, _ = bench.run(STRATEGY, model, ratio=0.5)
    wanted = {name for name, parameter in pruned.named_parameters() if parameter.requires_grad}
    assert wanted == {"classifier.weight", "classifier.bias"}


def test_refitting_readers_keeps_more_of_a_trained_model(bench: Any, trained: nn.Module, judge: Any) -> None:
    found = {
        repair: judge.divergence(
            bench.run(STRATEGY, trained, judge.calibration, ratio=0.25, importance="magnitude", repair=repair)[0]
        )
        for repair in ("none", "mean", "least-squares")
    }
    assert found["least-squares"] < 0.5 * found["none"]
    assert found["mean"] < found["none"]


def test_missing_images_fail_before_any_change(bench: Any) -> None:
    model = bench.prepared(tiny_vit())
    with pytest.raises(DataError):
        STRATEGY.apply(model, WidthConfig(ratio=0.5, repair="least-squares"), bench.context(model))
    assert bench.shapes(model) == bench.shapes(tiny_vit())


def test_a_layer_that_the_graph_does_not_see_is_refused(bench: Any) -> None:
    model = bench.prepared(tiny_vit())
    graph_blind = model.vit.layers[1].mlp
    forward = graph_blind.forward
    graph_blind.forward = lambda tokens: forward(tokens).detach()
    with pytest.raises(UnsupportedModelError, match=r"does not see that vit.layers.1.mlp.fc1 depends on the embedding"):
        STRATEGY.apply(model, WidthConfig(ratio=0.5), bench.context(model))
    assert bench.shapes(model) == bench.shapes(tiny_vit())


def test_torch_pruning_shuffles_a_norm_that_is_cut_to_a_small_share() -> None:
    """Why norms are cut here: it iterates over a set, which is in order only while its table spans all channels."""
    import torch_pruning

    norm = nn.LayerNorm(64)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(64.0))
    kept = [1, 5, 9, 20, 33, 40, 47, 63]
    torch_pruning.prune_layernorm_out_channels(norm, [i for i in range(64) if i not in kept])
    assert sorted(norm.weight.tolist()) == kept
    assert norm.weight.tolist() != kept


def test_channels_scored_on_a_gpu_are_chosen_on_the_cpu(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The indices of a head's copies are made there; fake tensors know devices that this machine lacks."""
    model = tiny_vit()
    config, context = WidthConfig(ratio=0.5), bench.context(model)
    with FakeTensorMode():
        monkeypatch.setattr(width, "_felt_by_the_loss", lambda *_: torch.empty(32, device="cuda"))
        kept = width._chosen(model, bench.layout(model), "taylor", 16, config, context)
    assert kept.device.type == "cpu"
    assert kept.shape == (16,)
