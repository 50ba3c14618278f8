from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from pah_opt.strategies.unstructured.optimizers import MagnitudePruning, UnstructuredPruning, Wanda
from pah_opt.testing import TINY_MODELS, tiny_vit

Run = Callable[..., tuple[nn.Module, dict[str, Any]]]
MAGNITUDE = MagnitudePruning()


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    return {p: m for p, m in model.named_modules() if isinstance(m, nn.Linear) and p != "classifier"}


def zeros(tensor: torch.Tensor) -> int:
    return int((tensor == 0).sum())


@pytest.mark.parametrize("family", sorted(TINY_MODELS))
@pytest.mark.parametrize("parameters", [{"sparsity": 0.5}, {"pattern": "2:4"}, {"sparsity": 0.9, "scope": "layer"}])
def test_every_family_reaches_the_sparsity_and_keeps_shapes_and_size(
    run: Run, family: str, parameters: dict[str, Any]
) -> None:
    dense = TINY_MODELS[family]()
    pruned, achieved = run(MAGNITUDE, dense, **parameters)
    wanted = MAGNITUDE.config_type(**parameters).zeros
    assert achieved["sparsity"] == pytest.approx(wanted, abs=1e-3)
    assert sum(p.numel() for p in pruned.parameters()) == sum(p.numel() for p in dense.parameters())
    assert not any(name.endswith(("_mask", "_orig")) for name in pruned.state_dict())


@pytest.mark.parametrize("sparsity", [0.1, 0.37, 0.5, 0.99])
def test_a_global_count_is_exact_to_the_weight(run: Run, sparsity: float) -> None:
    pruned, achieved = run(MAGNITUDE, tiny_vit(), sparsity=sparsity)
    total = sum(layer.weight.numel() for layer in linears(pruned).values())
    assert sum(zeros(layer.weight) for layer in linears(pruned).values()) == round(sparsity * total)
    assert achieved["sparsity"] == round(sparsity * total) / total


@pytest.mark.parametrize("sparsity", [0.1, 0.37, 0.5, 0.99])
def test_a_count_per_layer_is_exact_to_the_weight(run: Run, sparsity: float) -> None:
    pruned, _ = run(MAGNITUDE, tiny_vit(), sparsity=sparsity, scope="layer")
    for layer in linears(pruned).values():
        assert zeros(layer.weight) == round(sparsity * layer.weight.numel())


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_constant_weights_are_pruned_to_the_weight_too(run: Run, scope: str) -> None:
    model = tiny_vit()
    with torch.no_grad():
        for layer in linears(model).values():
            layer.weight.fill_(0.25)
    _, achieved = run(MAGNITUDE, model, sparsity=0.37, scope=scope)
    assert achieved["sparsity"] == pytest.approx(0.37, abs=1e-3)


def test_the_result_is_that_of_torch_global_unstructured(run: Run) -> None:
    dense = tiny_vit()
    pruned, _ = run(MAGNITUDE, dense, sparsity=0.6)
    reference = copy.deepcopy(dense)
    targets = [(layer, "weight") for layer in linears(reference).values()]
    torch_prune.global_unstructured(targets, torch_prune.L1Unstructured, amount=0.6)
    for path, layer in linears(reference).items():
        torch_prune.remove(layer, "weight")
        assert torch.equal(layer.weight, linears(pruned)[path].weight)


def test_weights_that_stay_are_untouched(run: Run) -> None:
    dense = tiny_vit()
    pruned, _ = run(MAGNITUDE, dense, sparsity=0.5)
    for path, layer in linears(pruned).items():
        old = linears(dense)[path].weight
        assert torch.equal(layer.weight, old.masked_fill(layer.weight == 0, 0))


def test_zeros_that_are_there_count_and_more_steps_go_on_from_them(run: Run) -> None:
    once, _ = run(MAGNITUDE, tiny_vit(), sparsity=0.3)
    twice, achieved = run(MAGNITUDE, once, sparsity=0.6)
    assert achieved["sparsity"] == pytest.approx(0.6, abs=1e-3)
    for path, layer in linears(once).items():
        assert (linears(twice)[path].weight[layer.weight == 0] == 0).all()


def test_asking_for_fewer_zeros_than_there_are_is_said_and_changes_nothing(run: Run) -> None:
    once, _ = run(MAGNITUDE, tiny_vit(), sparsity=0.6)
    twice, achieved = run(MAGNITUDE, once, sparsity=0.3)
    assert achieved["new_zeros"] == 0
    assert "already" in achieved["note"]
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True))


def test_the_classifier_is_left_alone_unless_asked_for(run: Run) -> None:
    pruned, achieved = run(MAGNITUDE, tiny_vit(), sparsity=0.5)
    assert zeros(pruned.classifier.weight) == 0
    assert "classifier" not in achieved["layers"]
    pruned, achieved = run(MAGNITUDE, tiny_vit(), sparsity=0.5, skip=[], scope="layer")
    assert zeros(pruned.classifier.weight) == pruned.classifier.weight.numel() // 2
    assert "classifier" in achieved["layers"]


def test_only_included_layers_are_pruned(run: Run) -> None:
    pruned, achieved = run(MAGNITUDE, tiny_vit(), sparsity=0.5, include=["mlp"])
    assert achieved["layers"]
    assert all(".mlp." in path for path in achieved["layers"])
    assert all(zeros(layer.weight) == 0 for path, layer in linears(pruned).items() if ".mlp." not in path)


def test_the_report_names_layers_the_whole_model_and_says_that_dense_kernels_gain_nothing(run: Run) -> None:
    pruned, achieved = run(MAGNITUDE, tiny_vit(), sparsity=0.5)
    parameters = list(pruned.parameters())
    assert achieved["sparsity_asked"] == 0.5
    assert achieved["model_sparsity"] == sum(map(zeros, parameters)) / sum(p.numel() for p in parameters)
    assert sum(row["zeros"] for row in achieved["layers"].values()) == achieved["new_zeros"]
    assert "no speed-up" in achieved["note"]


def test_both_norms_give_the_same_model(run: Run) -> None:
    first, _ = run(MAGNITUDE, tiny_vit(), sparsity=0.5, norm="l1")
    second, _ = run(MAGNITUDE, tiny_vit(), sparsity=0.5, norm="l2")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_half_precision_weights_keep_their_type(run: Run) -> None:
    pruned, achieved = run(MAGNITUDE, tiny_vit().to(torch.bfloat16), sparsity=0.5)
    assert achieved["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert {p.dtype for p in pruned.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("optimizer", [MagnitudePruning(), UnstructuredPruning(), Wanda()])
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"include": ["*.fc9"]}, r"'\*.fc9' matches no linear layer"),
        ({"skip": ["decoder.*"]}, r"'decoder.\*' matches no linear layer"),
        ({"include": ["classifier"]}, "leave no linear layer"),
        ({"pattern": "5:7"}, r"multiples of 7; .* has 32 \(12 such layers\)"),
    ],
)
def test_what_does_not_fit_the_model_is_found_before_it_is_touched(
    context: Callable[..., Any], optimizer: Any, parameters: dict[str, Any], message: str
) -> None:
    model = tiny_vit().to("meta")
    (problem,) = optimizer.check(model, optimizer.config_type(**parameters), context(model, planning=True))
    assert re.search(message, problem)


def test_a_dry_run_changes_nothing(context: Callable[..., Any]) -> None:
    model = tiny_vit().to("meta")
    assert MAGNITUDE.apply(model, MAGNITUDE.config_type(), context(model, planning=True)) is model
