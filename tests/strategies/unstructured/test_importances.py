from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from pah_opt.data import TensorSplit
from pah_opt.errors import DataError
from pah_opt.strategies.unstructured.config import UnstructuredConfig
from pah_opt.strategies.unstructured.gradients import mean_gradients
from pah_opt.strategies.unstructured.optimizers import MagnitudePruning, UnstructuredPruning, Wanda
from pah_opt.testing import TINY_MODELS, tiny_vit

Run = Callable[..., tuple[nn.Module, dict[str, Any]]]
UNSTRUCTURED, WANDA = UnstructuredPruning(), Wanda()
IMPORTANCES = ("magnitude", "random", "taylor", "obd", "hessian", "lamp", "wanda")
OBSERVING = ("taylor", "obd", "wanda")


def zeros(model: nn.Module) -> int:
    return sum(int((m.weight == 0).sum()) for m in model.modules() if isinstance(m, nn.Linear))


@pytest.mark.parametrize("family", sorted(TINY_MODELS))
@pytest.mark.parametrize("importance", OBSERVING)
def test_every_family_can_be_observed(run: Run, images: Callable[..., Any], family: str, importance: str) -> None:
    dense = TINY_MODELS[family]()
    pruned, achieved = run(UNSTRUCTURED, dense, images(dense), sparsity=0.4, importance=importance)
    assert achieved["sparsity"] == pytest.approx(0.4, abs=1e-3)
    assert torch.isfinite(
        pruned(images(dense).pixel_values).logits if hasattr(pruned, "config") else torch.zeros(1)
    ).all()


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_the_count_is_exact_in_the_scope_of_each_importance(
    run: Run, images: Callable[..., Any], importance: str
) -> None:
    dense = tiny_vit()
    pruned, achieved = run(UNSTRUCTURED, dense, images(dense), sparsity=0.7, importance=importance)
    rows = achieved["layers"].values()
    scopes = rows if importance == "wanda" else [{key: sum(row[key] for row in rows) for key in ("weights", "zeros")}]
    assert all(abs(scope["zeros"] - 0.7 * scope["weights"]) <= 1 for scope in scopes)
    assert zeros(pruned) == sum(row["zeros"] for row in rows)


@pytest.mark.parametrize("optimizer", [MagnitudePruning(), UNSTRUCTURED, WANDA])
def test_an_isomorphic_scope_lets_layers_of_one_role_compete(
    run: Run, images: Callable[..., Any], optimizer: Any
) -> None:
    dense = tiny_vit(mlp=64)
    with torch.no_grad():
        dense.vit.layers[1].mlp.fc1.weight *= 10
    _, achieved = run(optimizer, dense, images(dense), sparsity=0.4, scope="isomorphic")
    found: dict[str, list[Any]] = {}
    for path, row in achieved["layers"].items():
        role = path.rpartition(".")[2]
        found.setdefault("qkv" if role in ("q_proj", "k_proj", "v_proj") else role, []).append(row)
    assert [len(rows) for rows in found.values()] == [6, 2, 2, 2]
    for rows in found.values():
        assert sum(row["zeros"] for row in rows) == round(0.4 * sum(row["weights"] for row in rows))
    small, large = found["fc1"]
    assert small["sparsity"] > 0.7 > 0.1 > large["sparsity"]


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_every_importance_follows_a_pattern(run: Run, images: Callable[..., Any], importance: str) -> None:
    dense = tiny_vit()
    pruned, achieved = run(UNSTRUCTURED, dense, images(dense), pattern="1:4", importance=importance)
    assert achieved["sparsity"] == 0.75
    weight = pruned.get_submodule(next(iter(achieved["layers"]))).weight
    assert ((weight.reshape(-1, 4) != 0).sum(dim=1) == 1).all()


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_the_same_seed_and_images_give_the_same_model(run: Run, images: Callable[..., Any], importance: str) -> None:
    dense = tiny_vit()
    first, second = (run(UNSTRUCTURED, dense, images(dense), importance=importance)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("importance", OBSERVING)
def test_observing_leaves_no_gradient_flag_or_hook(run: Run, images: Callable[..., Any], importance: str) -> None:
    dense = tiny_vit()
    dense.classifier.weight.requires_grad_(False)
    pruned, _ = run(UNSTRUCTURED, dense, images(dense), importance=importance)
    assert all(parameter.grad is None for parameter in pruned.parameters())
    assert [n for n, p in pruned.named_parameters() if not p.requires_grad] == ["classifier.weight"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pruned.modules())


def gradients(model: nn.Module, split: TensorSplit, context: Any, *, batch_size: int, squared: bool) -> dict[str, Any]:
    layers = {p: m for p, m in model.named_modules() if isinstance(m, nn.Linear)}
    seeing = UnstructuredConfig(batch_size=batch_size)
    return mean_gradients(model, layers, context(model, split), seeing, squared=squared)


def test_mean_gradients_are_those_of_the_mean_loss(context: Callable[..., Any], images: Callable[..., Any]) -> None:
    model = tiny_vit()
    split = images(model)
    found = gradients(model, split, context, batch_size=5, squared=False)
    functional.cross_entropy(model(split.pixel_values).logits, split.labels).backward()
    for path, sums in found.items():
        assert torch.allclose(sums.weight, model.get_submodule(path).weight.grad, atol=1e-6)


def test_squared_gradients_are_taken_per_image_whatever_the_batch(
    context: Callable[..., Any], images: Callable[..., Any]
) -> None:
    model = tiny_vit()
    split = images(model, count=6)
    whole = gradients(model, split, context, batch_size=6, squared=True)
    single = gradients(model, split, context, batch_size=1, squared=True)
    mean = gradients(model, split, context, batch_size=6, squared=False)
    for path, sums in whole.items():
        assert torch.allclose(sums.weight, single[path].weight, rtol=1e-3, atol=1e-12)
        assert torch.allclose(sums.outputs, single[path].outputs, rtol=1e-3, atol=1e-12)
        assert (sums.weight >= mean[path].weight.square() * 0.999).all()


def test_taylor_keeps_what_the_loss_depends_on_where_magnitude_does_not(run: Run, judge: Any) -> None:
    """Weights that are large and without any effect must not save themselves by their size."""
    model = copy.deepcopy(judge.dense)
    block = model.vit.layers[0]
    with torch.no_grad():
        block.mlp.fc1.bias[:48] = -100.0
        block.mlp.fc1.weight[:48] *= 30
        block.mlp.fc2.weight[:, :48] *= 30
    _, achieved = run(UNSTRUCTURED, model, judge.calibration, sparsity=0.3, importance="taylor")
    _, naive = run(UNSTRUCTURED, model, sparsity=0.3, importance="magnitude")
    path = next(path for path in achieved["layers"] if path.endswith("layers.0.mlp.fc1"))
    assert achieved["layers"][path]["sparsity"] >= 0.5
    assert naive["layers"][path]["sparsity"] < 0.3


@pytest.mark.parametrize("importance", ["taylor", "obd", "lamp", "magnitude"])
def test_an_importance_beats_chance_by_far(run: Run, judge: Any, importance: str) -> None:
    chosen, _ = run(UNSTRUCTURED, judge.dense, judge.calibration, sparsity=0.7, importance=importance)
    chance, _ = run(UNSTRUCTURED, judge.dense, sparsity=0.7, importance="random")
    assert judge.accuracy(chosen) > 90 > judge.accuracy(chance) + 20


def test_wanda_is_the_wanda_importance(run: Run, images: Callable[..., Any]) -> None:
    dense = tiny_vit()
    first, _ = run(WANDA, dense, images(dense), sparsity=0.6)
    second, _ = run(UNSTRUCTURED, dense, images(dense), sparsity=0.6, importance="wanda")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_wanda_drops_the_weights_of_an_input_that_is_never_there(run: Run, images: Callable[..., Any]) -> None:
    model = tiny_vit()
    block = model.vit.layers[0]
    with torch.no_grad():
        block.layernorm_before.weight[:8] = 0
        block.layernorm_before.bias[:8] = 0
    pruned, _ = run(WANDA, model, images(model), sparsity=0.25)
    assert (pruned.vit.layers[0].attention.q_proj.weight[:, :8] == 0).all()


@pytest.mark.parametrize("importance", OBSERVING)
def test_missing_images_are_refused(run: Run, importance: str) -> None:
    with pytest.raises(DataError, match="at least 8 calibration images and has 0"):
        run(UNSTRUCTURED, tiny_vit(), None, importance=importance)


@pytest.mark.parametrize("importance", OBSERVING)
def test_images_of_another_size_are_refused(run: Run, images: Callable[..., Any], importance: str) -> None:
    with pytest.raises(DataError, match="the model takes"):
        run(UNSTRUCTURED, tiny_vit(), images(tiny_vit(image=16)), importance=importance)


@pytest.mark.parametrize("importance", OBSERVING)
def test_eight_images_are_enough(run: Run, images: Callable[..., Any], importance: str) -> None:
    model = tiny_vit()
    _, achieved = run(UNSTRUCTURED, model, images(model, count=8), importance=importance)
    assert achieved["sparsity"] == pytest.approx(0.5, abs=1e-3)


def test_labels_of_another_data_set_are_refused(run: Run, images: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"labels of .* run from 0 to 9, the model has classes 0 to 2"):
        run(UNSTRUCTURED, tiny_vit(classes=3), images(tiny_vit()), importance="taylor")


@pytest.mark.parametrize("importance", ["taylor", "obd"])
def test_gradients_that_are_all_zero_rank_nothing_and_are_refused(
    run: Run, images: Callable[..., Any], importance: str
) -> None:
    model = tiny_vit()
    nn.init.zeros_(model.classifier.weight)
    with pytest.raises(DataError, match="all zero; fit it first"):
        run(UNSTRUCTURED, model, images(model), importance=importance)


def test_at_most_so_many_images_are_looked_at(context: Callable[..., Any], images: Callable[..., Any]) -> None:
    model = tiny_vit()
    seen = []
    model.register_forward_pre_hook(lambda _module, args: seen.append(len(args[0])))
    config = UnstructuredConfig(importance="wanda", images=9, batch_size=4)
    UNSTRUCTURED.apply(model, config, context(model, images(model)))
    assert seen == [4, 4, 1]


def test_gradients_of_a_bare_backbone_are_refused_before_it_is_touched(context: Callable[..., Any]) -> None:
    model = tiny_vit(classes=0)
    config = UnstructuredConfig(importance="taylor")
    (problem,) = UNSTRUCTURED.check(model, config, context(model))
    assert "bare backbone" in problem


def test_only_importances_that_observe_need_images() -> None:
    needs = {name: UNSTRUCTURED.needs(UnstructuredConfig(importance=name)) for name in IMPORTANCES}
    assert [name for name in IMPORTANCES if needs[name].calibration] == ["taylor", "obd", "hessian", "wanda"]
    assert [name for name in IMPORTANCES if needs[name].labels] == ["taylor", "obd", "hessian"]
