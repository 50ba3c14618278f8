from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import pah_opt
from pah_opt import Recipe, Step
from pah_opt.environment import Environment
from pah_opt.errors import UnsupportedHardwareError
from pah_opt.storage.leaves import held_tensors, take_apart
from pah_opt.strategies.unstructured import semi_structured
from pah_opt.strategies.unstructured.config import SemiStructuredConfig
from pah_opt.strategies.unstructured.optimizers import MagnitudePruning, SemiStructured
from pah_opt.strategies.unstructured.semi_structured import (
    kernel_problems,
    misfits,
    obstacle_to_kernels,
    pack,
    pack_again,
)
from pah_opt.testing import TINY_MODELS, tiny_vit

Run = Callable[..., tuple[nn.Module, dict[str, Any]]]
SEMI = SemiStructured()
METHODS = ("magnitude", "wanda", "sparsegpt")
A100 = Environment(cuda=True, capability=(8, 0))
T4 = Environment(cuda=True, capability=(7, 5))


@pytest.mark.parametrize("family", sorted(TINY_MODELS))
@pytest.mark.parametrize("method", METHODS)
def test_feed_forward_layers_of_every_family_become_two_of_four(
    run: Run, images: Callable[..., Any], family: str, method: str
) -> None:
    dense = TINY_MODELS[family]()
    pruned, achieved = run(SEMI, dense, images(dense), method=method, kernels="pattern")
    assert achieved["sparsity"] == 0.5
    layers = {p: m for p, m in pruned.named_modules() if isinstance(m, nn.Linear)}
    for path, layer in layers.items():
        kept = (layer.weight.reshape(-1, 4) != 0).sum(dim=1)
        assert (kept == 2).all() if path in achieved["layers"] else (kept > 2).any()


def test_without_a_gpu_the_report_says_that_only_the_pattern_was_made_and_why(run: Run) -> None:
    _, achieved = run(SEMI, tiny_vit(), method="magnitude")
    assert achieved["kernels"] == "none: the 2:4 pattern only"
    assert "on cpu" in achieved["kernels_reason"]
    assert "no speed-up" in achieved["note"]


def test_a_pattern_that_was_asked_for_is_not_excused_by_the_machine(run: Run) -> None:
    _, achieved = run(SEMI, tiny_vit(), method="magnitude", kernels="pattern")
    assert achieved["kernels_reason"] == "the recipe asks for the pattern only"


def test_repair_beats_magnitude_by_far(run: Run, judge: Any) -> None:
    everything = {"include": ["*"], "kernels": "pattern"}
    repaired, _ = run(SEMI, judge.dense, judge.calibration, **everything)
    cut, _ = run(SEMI, judge.dense, judge.calibration, method="magnitude", **everything)
    assert judge.divergence(repaired) < 0.5 * judge.divergence(cut)


def test_a_model_that_follows_the_pattern_already_keeps_its_zeros(run: Run) -> None:
    first, _ = run(MagnitudePruning(), tiny_vit(), pattern="2:4")
    second, achieved = run(SEMI, first, method="magnitude", include=["*"])
    assert achieved["new_zeros"] == 0
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_required_kernels_that_cannot_run_are_a_named_error(context: Callable[..., Any]) -> None:
    model = tiny_vit(hidden=64, mlp=128).to(torch.bfloat16)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    config = SemiStructuredConfig(method="magnitude", kernels="require")
    with pytest.raises(UnsupportedHardwareError, match=r"on cpu.*kernels: pattern"):
        SEMI.apply(model, config, context(model))
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


@pytest.mark.parametrize(("kernels", "multiple"), [("pattern", 4), ("auto", 64), ("require", 64)])
def test_widths_before_it_are_aligned_to_groups_or_to_what_kernels_take(kernels: Any, multiple: int) -> None:
    assert SEMI.alignment(SemiStructuredConfig(kernels=kernels)) == multiple


@pytest.mark.parametrize(
    "second",
    [Step.of("semi-structured", kernels="pattern", method="magnitude"), Step.of("magnitude-pruning", pattern="2:4")],
    ids=lambda step: step.use,
)
@pytest.mark.parametrize(
    "first", [Step.of("structured-pruning", mlp=0.3), Step.of("width-pruning", ratio=0.3)], ids=lambda step: step.use
)
def test_cuts_before_it_leave_whole_groups(first: Step, second: Step) -> None:
    """By themselves they leave 45 of 64 hidden units, and 22 of 32 channels."""
    planned = pah_opt.plan(tiny_vit(mlp=64), Recipe(steps=(first, second)))
    widths = planned.steps[0].notes
    assert set(widths.get("mlp_widths", [widths.get("hidden_size")])) <= {24, 44}


@pytest.mark.parametrize(
    ("environment", "device", "dtype", "reason"),
    [
        (Environment(cuda=False), "cpu", torch.bfloat16, "CUDA device"),
        (A100, "cpu", torch.bfloat16, "the model is on cpu"),
        (T4, "cuda", torch.float16, "compute capability 7.5, and they need 8.0"),
        (A100, "cuda", torch.float32, "weights are float32"),
        (A100, "cuda", torch.float16, None),
        (A100, "cuda", torch.bfloat16, None),
    ],
)
def test_what_stands_in_the_way_of_kernels_is_named(
    environment: Environment, device: str, dtype: torch.dtype, reason: str | None
) -> None:
    class Weight:
        """A tensor of any device, on a machine that has none."""

        def __init__(self) -> None:
            self.device = torch.device(device)
            self.dtype = dtype

    found = obstacle_to_kernels(Weight(), environment)  # type: ignore[arg-type]
    assert found is None if reason is None else reason in (found or "")


def test_layers_that_the_kernels_cannot_take_are_named() -> None:
    layers = {"fits": nn.Linear(64, 32), "narrow": nn.Linear(32, 32), "short": nn.Linear(64, 16)}
    assert misfits(layers) == ["narrow", "short"]


def test_required_kernels_find_wrong_type_and_shapes_before_any_step(context: Callable[..., Any]) -> None:
    model = tiny_vit().to("meta")
    config = SemiStructuredConfig(method="magnitude", kernels="require", include=("*.fc1",))
    type_problem, shape_problem = SEMI.check(model, config, context(model, planning=True))
    assert "float32" in type_problem
    assert "cast" in type_problem
    assert "32 x 64" in shape_problem
    half = tiny_vit(hidden=64, mlp=128).to("meta", torch.bfloat16)
    assert SEMI.check(half, config, context(half, planning=True)) == []
    assert kernel_problems({"one": nn.Linear(64, 64, dtype=torch.float16)}) == []


def test_a_pattern_that_matches_nothing_is_found_first(context: Callable[..., Any]) -> None:
    model = tiny_vit().to("meta")
    config = SemiStructuredConfig(include=("*.fc9",), kernels="require")
    (problem,) = SEMI.check(model, config, context(model, planning=True))
    assert "fc9" in problem


def test_kernels_decide_tags_and_needs_whatever_the_machine() -> None:
    tags = {kernels: SEMI.tags(SemiStructuredConfig(kernels=kernels)) for kernels in ("auto", "require", "pattern")}
    assert tags["auto"] == tags["require"]
    assert "weights:float" in tags["auto"].removes
    assert "linear:2:4" in tags["auto"].provides
    assert not tags["pattern"].removes
    assert tags["pattern"].provides == {"weights:sparse"}
    needs = SEMI.needs(SemiStructuredConfig(kernels="require"))
    assert (needs.cuda, needs.capability, needs.calibration) == (True, (8, 0), True)
    assert not SEMI.needs(SemiStructuredConfig(method="magnitude")).calibration


def test_a_loaded_model_stays_dense_where_kernels_cannot_run(run: Run) -> None:
    model, _ = run(SEMI, tiny_vit(), method="magnitude")
    before = [parameter.clone() for parameter in model.parameters()]
    state = SEMI.state(model, SemiStructuredConfig())
    assert state == {"packed": []}
    paths = ["vit.layers.0.mlp.fc1"]
    assert pack_again(model, paths, Environment(cuda=False)) == []
    assert SEMI.finish(SEMI.restore(model, state), {"packed": paths}) is model
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.fixture
def packing_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let weights be packed without a GPU (they cannot be multiplied with then)."""
    from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

    def pack_one(dense: torch.Tensor) -> torch.Tensor:
        packed, meta = sparse_semi_structured_from_dense_cutlass(dense)
        return torch.sparse.SparseSemiStructuredTensorCUTLASS(dense.shape, packed, meta, None, None, None)

    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", pack_one)


@pytest.mark.usefixtures("packing_anywhere")
def test_packed_layers_are_named_and_saved_as_plain_tensors_that_load_anywhere(run: Run, tmp_path: Any) -> None:
    model, achieved = run(SEMI, tiny_vit(hidden=64, mlp=128).to(torch.bfloat16), method="magnitude")
    dense = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layers = {path: model.get_submodule(path) for path in achieved["layers"]}
    assert pack(layers) == list(layers)
    assert SEMI.state(model, SemiStructuredConfig()) == {"packed": list(layers)}
    for held in held_tensors(model):
        (plain,) = take_apart(held).leaves.values()
        assert torch.equal(plain, dense[held.path])


@pytest.mark.usefixtures("packing_anywhere")
def test_a_layer_that_does_not_fit_the_kernels_stays_dense(run: Run) -> None:
    model, achieved = run(SEMI, tiny_vit().to(torch.float16), method="magnitude")
    layers = {path: model.get_submodule(path) for path in achieved["layers"]}
    assert pack(layers) == [path for path in layers if path.endswith("fc2")]
    assert all(type(layer.weight) is nn.Parameter for path, layer in layers.items() if path.endswith("fc1"))


@pytest.mark.usefixtures("packing_anywhere")
def test_a_packed_layer_reports_its_kernels(context: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semi_structured, "obstacle_to_kernels", lambda *_: None)
    model = tiny_vit().to(torch.float16)
    found = context(model)
    SEMI.apply(model, SemiStructuredConfig(method="magnitude"), found)
    assert found.achieved["kernels"] == "sparse tensor cores in 2 layers"
    assert list(found.achieved["left_dense"]) == ["vit.layers.0.mlp.fc1", "vit.layers.1.mlp.fc1"]
    assert pack_again(tiny_vit().to(torch.float16), []) == []


def test_a_dry_run_changes_nothing(context: Callable[..., Any]) -> None:
    model = tiny_vit().to("meta")
    assert SEMI.apply(model, SemiStructuredConfig(), context(model, planning=True)) is model
