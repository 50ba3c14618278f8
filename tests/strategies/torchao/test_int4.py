"""Four bits: grids, rounding, error correction, and the packed tensor."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pah_opt.strategies.torchao.int4 import Quantized, expanded, round_nearest, round_with_repair
from pah_opt.strategies.torchao.packed_int4 import PackedInt4Tensor


def weight_of(rows: int = 24, columns: int = 96, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.1


def correlated(columns: int = 96, rows: int = 800) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    mixing = torch.randn(columns // 3, columns, generator=generator)
    return torch.randn(rows, columns // 3, generator=generator) @ mixing + 0.05 * torch.randn(
        rows, columns, generator=generator
    )


def dense(quantized: Quantized) -> torch.Tensor:
    values = expanded(quantized.values.float(), quantized.grid)
    return values.reshape(len(values), -1)


def packed(weight: torch.Tensor, group_size: int = 32) -> PackedInt4Tensor:
    values, grid = round_nearest(weight, group_size, search=True)
    return PackedInt4Tensor.pack(values, grid.scale, grid.zero_point, weight.dtype)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([16, 32]), st.booleans(), st.sampled_from([1e-6, 0.1, 300.0]))
def test_rounding_errs_by_less_than_a_step_of_the_group(seed: int, group: int, search: bool, size: float) -> None:
    weight = weight_of(8, 64, seed) * size
    found = round_nearest(weight, group, search=False)
    error = (dense(found) - weight).abs().reshape(8, -1, group).amax(dim=-1)
    assert (error <= found.grid.scale * 1.01 + 1e-7).all()
    if search:
        searched = dense(round_nearest(weight, group, search=True))
        assert (searched - weight).square().sum() <= (dense(found) - weight).square().sum() * (1 + 1e-6)


@pytest.mark.parametrize("group", [16, 32])
def test_zeros_stay_exactly_zero(group: int) -> None:
    weight = weight_of()
    weight[torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.6] = 0
    weight[3] = 0
    moment = torch.eye(96)
    for found in (round_nearest(weight, group, search=False), round_with_repair(weight, moment, group)):
        assert (dense(found)[weight == 0] == 0).all()


def test_gptq_halves_the_error_of_outputs_for_correlated_inputs() -> None:
    weight, inputs = weight_of(), correlated()
    wanted = inputs @ weight.T
    moment = inputs.T @ inputs / len(inputs)
    errors = [
        float((inputs @ dense(found).T - wanted).norm())
        for found in (round_nearest(weight, 32, search=True), round_with_repair(weight, moment, 32))
    ]
    assert errors[1] < errors[0] / 2


def test_gptq_survives_inputs_that_are_always_zero() -> None:
    inputs = correlated()
    inputs[:, 10:20] = 0
    found = round_with_repair(weight_of(), inputs.T @ inputs / len(inputs), 32)
    assert torch.isfinite(dense(found)).all()
    nothing = round_with_repair(weight_of(), torch.zeros(96, 96), 32)
    assert (dense(nothing) - weight_of()).norm() < 0.12 * weight_of().norm()


def test_packing_keeps_every_value() -> None:
    values = torch.arange(16, dtype=torch.uint8).repeat(4, 2, 1)
    scale, zero = torch.full((4, 2), 0.5), torch.full((4, 2), 3.0)
    tensor = PackedInt4Tensor.pack(values, scale, zero, torch.float32)
    assert torch.equal(tensor.dequantize(), (values.float() - 3).reshape(4, 32) * 0.5)
    assert tensor.qdata.nbytes * 2 == values.numel()


def test_a_weight_of_four_bits_takes_under_five_bits_in_all() -> None:
    tensor = packed(weight_of(64, 256))
    held = tensor.qdata.nbytes + tensor.scale.nbytes + tensor.zero_point.nbytes
    assert held * 8 / tensor.numel() == 4.75


def test_packed_tensor_looks_like_the_dense_weight() -> None:
    tensor = packed(weight_of())
    assert tensor.shape == (24, 96)
    assert tensor.dtype is torch.float32
    assert "group_size=32" in repr(tensor)


def layer_with_packed_weight() -> nn.Linear:
    layer = nn.Linear(96, 24)
    layer.weight = nn.Parameter(packed(weight_of()), requires_grad=False)
    return layer


@pytest.mark.parametrize("shape", [(96,), (5, 96), (2, 3, 96)])
def test_linear_layer_multiplies_with_what_the_weight_expands_to(shape: tuple[int, ...]) -> None:
    layer = layer_with_packed_weight()
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(inputs), nn.functional.linear(inputs, layer.weight.dequantize(), layer.bias))


def test_linear_accepts_its_arguments_by_name() -> None:
    layer, inputs = layer_with_packed_weight(), torch.ones(2, 96)
    assert torch.equal(nn.functional.linear(inputs, layer.weight, bias=layer.bias), layer(inputs))


def test_packed_layers_can_be_copied_and_moved() -> None:
    layer, inputs = layer_with_packed_weight(), torch.ones(2, 96)
    assert torch.equal(copy.deepcopy(layer)(inputs), layer(inputs))
    assert copy.deepcopy(layer).to("meta").weight.qdata.is_meta


def test_inputs_decide_the_type_of_products() -> None:
    layer = layer_with_packed_weight().to(torch.bfloat16)
    assert layer(torch.ones(2, 96, dtype=torch.bfloat16)).dtype is torch.bfloat16


def test_rounding_defaults_to_gptq_with_images_and_to_search_without(
    run: Callable[..., Any], images: Callable[..., Any], vit: nn.Module, pixels: torch.Tensor
) -> None:
    with_images, without = run(vit, scheme="int4-weight-only"), run(vit, None, scheme="int4-weight-only")
    assert (with_images.achieved["rounding"], without.achieved["rounding"]) == ("gptq", "search")
    assert run(vit, images(vit, 3), scheme="int4-weight-only").achieved["rounding"] == "search"
    assert with_images.error(pixels) < without.error(pixels)


def test_smaller_groups_are_more_accurate(run: Callable[..., Any], vit: nn.Module, pixels: torch.Tensor) -> None:
    errors = [run(vit, None, scheme="int4-weight-only", group_size=size).error(pixels) for size in (16, 64)]
    assert errors[0] < errors[1]
