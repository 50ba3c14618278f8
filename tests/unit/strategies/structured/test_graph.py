"""torch-pruning's graph cuts what the Layout expects, or nothing at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.strategies.structured.cutting import Cutter
from pah_opt.strategies.structured.graph import PruningGraph, head_cuts, traced, unit_cuts
from pah_opt.testing import TINY_MODELS, tiny_timm_vit, tiny_vit

ADAPTERS = tuple(pah_opt_model_adapters())


def ready(model: Any) -> tuple[Any, Any, Any]:
    adapter = find_adapter(model, ADAPTERS)
    model = adapter.prepare(model).eval()
    return model, adapter, adapter.layout(model)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_the_graph_agrees_with_the_layout_in_every_family(name: str, device: str) -> None:
    model, adapter, layout = ready(TINY_MODELS[name]().to(device))
    graph = PruningGraph(model, adapter, layout)
    block = layout.blocks[1]
    for path, cuts in (
        (block.attention.output, head_cuts(block.attention, [1])),
        (block.mlp.fc2, unit_cuts(block.mlp, [3, 5])),
    ):
        side, indices = cuts[path]
        assert graph.cuts(graph.group(path, side, indices)) == cuts


def test_fused_projections_lose_three_rows_for_each_dimension() -> None:
    _, _, layout = ready(tiny_timm_vit(heads=2, hidden=8))
    attention = layout.blocks[0].attention
    assert head_cuts(attention, [1]) == {
        attention.output: ("in", (4, 5, 6, 7)),
        attention.query: ("out", (4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23)),
    }


def test_a_group_that_misses_a_layer_is_not_cut() -> None:
    model, adapter, layout = ready(tiny_vit())
    block = layout.blocks[0]
    expected = unit_cuts(block.mlp, [0]) | {block.attention.query: ("out", (0,))}
    graph = PruningGraph(model, adapter, layout)
    assert not graph.cut(block.mlp.fc2, expected)
    assert model.get_submodule(block.mlp.fc1).out_features == 64


def test_a_group_that_reaches_out_of_its_block_is_not_cut() -> None:
    """The embedding runs through all blocks: as if a Layout named the wrong layer."""
    model, adapter, layout = ready(tiny_vit())
    path = layout.blocks[0].mlp.fc2
    graph = PruningGraph(model, adapter, layout)
    assert not graph.cut(path, {path: ("out", (0,))})
    assert model.get_submodule(path).out_features == 32


def test_layers_that_no_layout_names_are_cut_with_the_rest() -> None:
    """A norm between the two layers of a network, as some models have."""

    class Normed(nn.Module):
        def __init__(self, mlp: nn.Module) -> None:
            super().__init__()
            self.fc1, self.fc2, self.norm = mlp.fc1, mlp.fc2, nn.LayerNorm(64)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.fc2(self.norm(torch.nn.functional.gelu(self.fc1(tokens))))
            return output

    model = tiny_vit()
    model.vit.layers[0].mlp = Normed(model.vit.layers[0].mlp)
    model, adapter, layout = ready(model)
    Cutter(model, adapter, layout).units(layout.blocks[0].mlp, list(range(32)))
    assert model.vit.layers[0].mlp.norm.normalized_shape == (32,)
    assert model(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 10)


def test_a_model_that_cannot_be_traced_is_cut_by_its_layout() -> None:
    model, adapter, layout = ready(tiny_vit())
    forward = model.forward
    model.forward = lambda pixels: (_ for _ in ()).throw(RuntimeError("no tracing here"))
    cutter = Cutter(model, adapter, layout)
    assert "torch-pruning cannot trace the model: RuntimeError: no tracing here" in cutter.method
    model.forward = forward
    block = layout.blocks[0]
    cutter.heads(block.attention, [0, 2])
    cutter.units(block.mlp, range(0, 64, 2))
    assert model.vit.layers[0].attention.num_attention_heads == 2
    assert model(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 10)


def test_tracing_leaves_frozen_parameters_and_hooks_as_they_were() -> None:
    model, adapter, layout = ready(tiny_vit().requires_grad_(requires_grad=False))
    graph, _ = traced(model, adapter, layout)
    assert graph is not None
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
