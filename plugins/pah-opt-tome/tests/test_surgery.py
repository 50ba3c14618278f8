"""What merging does to real forward passes: the same answer without merges, fewer MACs with them, on every layout."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from pah_opt_tome.surgery import install, installed, plan_blocks
from torch import nn

import pah_opt
from pah_opt.errors import RecipeError, UnsupportedModelError
from pah_opt.models import find_adapter, logits_of
from pah_opt.registry import default_registry
from pah_opt.testing import TINY_MODELS, tiny_images, tiny_timm_vit, tiny_vit


def prepared(model: nn.Module) -> tuple[nn.Module, Any]:
    adapter = find_adapter(model, default_registry().adapters)
    model = adapter.prepare(model)
    return model, adapter.layout(model)


def logits(model: nn.Module, **options: Any) -> torch.Tensor:
    with torch.inference_mode():
        return logits_of(model(tiny_images(3, **options)))


@pytest.mark.parametrize("name", [*TINY_MODELS, "qk-norm"])
def test_without_merges_every_block_computes_what_it_did(name: str) -> None:
    model, layout = prepared(tiny_timm_vit(qk_norm=True) if name == "qk-norm" else TINY_MODELS[name]())
    before = logits(model)
    plans = plan_blocks(layout, [1] * len(layout.blocks), proportional=True)
    tokens = plans[0].tokens
    install(model, [replace(plan, r=0, tokens=tokens) for plan in plans])
    assert len(installed(model)) == len(layout.blocks)
    assert torch.allclose(logits(model), before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "token"])
def test_tokens_that_are_equal_merge_without_a_trace(pooling: str) -> None:
    """Proportional attention and weighted means make copies of a token and one heavier token the same thing."""
    model, layout = prepared(tiny_timm_vit(global_pool="avg" if pooling == "mean" else "token", class_token=True))
    pixels = torch.ones(2, 3, 32, 32)
    model.pos_embed.data[:, 1:] = model.pos_embed.data[:, 1:2]  # type: ignore[union-attr,index]  # a parameter
    with torch.inference_mode():
        before = logits_of(model(pixels))
        install(model, plan_blocks(layout, [8, 4], proportional=True))
        assert torch.allclose(logits_of(model(pixels)), before, atol=1e-5)


def test_macs_fall_as_the_number_of_tokens_says() -> None:
    model, hidden, mlp, heads = tiny_vit(blocks=3), 32, 64, 4
    planned = pah_opt.plan(model, pah_opt.Recipe(steps=[pah_opt.Step.of("tome", r=4)]))
    tokens = [17, 13, 9, 5]
    saved = 0
    for before, after in pairwise(tokens):
        full = 17
        saved += (full - before) * 4 * hidden * hidden  # the projections
        saved += 2 * (full**2 - before**2) * hidden  # scores and sums
        saved += (full - after) * 2 * hidden * mlp  # the feed-forward network
        free = before - 1
        saved -= (free + 1) // 2 * (free // 2) * (hidden // heads)  # the matching itself
    assert planned.before.macs - planned.steps[0].figures.macs == saved
    assert planned.steps[0].notes["patch_tokens"] == {"before": 16, "after": 4}


def test_another_input_size_is_refused_by_name_when_planned_after_merging() -> None:
    late = pah_opt.Recipe(steps=[pah_opt.Step.of("tome"), pah_opt.Step.of("input-size", size=16)])
    with pytest.raises(RecipeError, match="input-size and depth-pruning before tome"):
        pah_opt.plan(tiny_vit(), late)
    early = pah_opt.Recipe(steps=[pah_opt.Step.of("input-size", size=16), pah_opt.Step.of("tome", keep=0.5)])
    assert pah_opt.plan(tiny_vit(), early).steps[1].notes["patch_tokens"] == {"before": 4, "after": 2}


def test_both_amounts_at_once_are_refused() -> None:
    with pytest.raises(RecipeError, match="give r or keep, not both"):
        pah_opt.plan(tiny_vit(), pah_opt.Recipe(steps=[pah_opt.Step.of("tome", r=2, keep=0.5)]))


def test_a_share_that_merges_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="none of the 16 patch tokens merges"):
        pah_opt.plan(tiny_vit(), pah_opt.Recipe(steps=[pah_opt.Step.of("tome", keep=0.99)]))


def test_a_block_of_unknown_parts_is_refused_before_anything_changes() -> None:
    model, layout = prepared(tiny_vit())
    last: Any = model.get_submodule(layout.blocks[-1].path)
    last.attention = nn.Identity()
    with pytest.raises(UnsupportedModelError, match="no parts that token merging knows"):
        install(model, plan_blocks(layout, [2, 2], proportional=True))
    assert not installed(model)


@pytest.mark.parametrize("name", ["hf-vit", "timm-vit"])
def test_pruned_merged_and_quantized_models_come_back_from_disk(name: str, tmp_path: Any) -> None:
    steps = [
        pah_opt.Step.of("structured-pruning", heads=0.5, mlp=0.5),
        pah_opt.Step.of("tome", keep=0.5, schedule="decreasing"),
        pah_opt.Step.of("torchao", scheme="int8-dynamic"),
        pah_opt.Step.of("compile", backend="eager"),
    ]
    made = pah_opt.apply(TINY_MODELS[name](blocks=3, hidden=64), pah_opt.Recipe(steps=steps))
    made.save(tmp_path / "artifact")
    again = pah_opt.load(tmp_path / "artifact", verify=True).model
    assert torch.equal(logits(again), logits(made.model))
    assert made.tags >= {"tokens:merged", "linear:int8", "compiled"}


def test_a_merging_model_is_pruned_and_what_torch_pruning_cannot_follow_is_said_once(
    recwarn: pytest.WarningsRecorder,
) -> None:
    steps = [pah_opt.Step.of("tome", keep=0.5), pah_opt.Step.of("structured-pruning", mlp=0.5)]
    made = pah_opt.apply(TINY_MODELS["hf-vit"](blocks=3, hidden=64), pah_opt.Recipe(steps=steps))
    assert made.steps[1].achieved["removed"]["mlp"] == 0.5
    assert "torch-pruning cannot trace the model" in made.steps[1].achieved["cut_by"]
    assert [each for each in recwarn if "recursive" in str(each.message)] == []


def test_a_merging_model_can_be_exported_with_a_free_batch_size() -> None:
    made = pah_opt.apply(tiny_vit(), pah_opt.Recipe(steps=[pah_opt.Step.of("tome", r=3)])).model
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(made, (tiny_images(2),), dynamic_shapes=({0: batch},))
    assert torch.allclose(program.module()(tiny_images(3)).logits, logits(made), atol=1e-5)


@pytest.mark.parametrize("training", [{"distill_features": 1.0}, {"input_size": 16}])
def test_training_that_compares_or_changes_tokens_is_refused_when_planned(training: dict[str, Any]) -> None:
    steps = [pah_opt.Step.of("tome", r=3), pah_opt.Step.of("recover", **training)]
    with pytest.raises(RecipeError, match="tokens:merged"):
        pah_opt.plan(tiny_vit(), pah_opt.Recipe(steps=steps))
    pah_opt.plan(tiny_vit(), pah_opt.Recipe(steps=steps[::-1]))


def test_a_merging_model_survives_pickling() -> None:
    made = pah_opt.apply(tiny_vit(), pah_opt.Recipe(steps=[pah_opt.Step.of("tome", r=3)]), on_collapse="ignore").model
    again = pickle.loads(pickle.dumps(made))
    assert torch.equal(logits(again), logits(made))
    assert installed(again) == installed(made)
    assert torch.equal(logits(copy.deepcopy(made)), logits(made))
