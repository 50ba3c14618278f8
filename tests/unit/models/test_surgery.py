from __future__ import annotations

import pytest
import torch
from torch import nn

from pah_opt.models.linears import linear_of, stacked, unstacked
from pah_opt.models.surgery import keep_columns, keep_rows, remove_blocks, replace_module


@pytest.mark.parametrize("positions", [[3, 0], range(2), torch.tensor([1])])
def test_kept_rows_are_outputs_in_the_order_given(positions: object) -> None:
    layer = nn.Linear(5, 4)
    inputs = torch.randn(2, 5)
    wanted = layer(inputs)[:, list(positions)]  # type: ignore[call-overload]
    keep_rows(layer, positions)  # type: ignore[arg-type]
    torch.testing.assert_close(layer(inputs), wanted)
    assert layer.out_features == layer.weight.shape[0] == len(layer.bias)


def test_kept_columns_are_inputs_in_the_order_given() -> None:
    layer = nn.Linear(5, 4)
    inputs = torch.randn(2, 5)
    inputs[:, [1, 3]] = 0
    wanted = layer(inputs)
    keep_columns(layer, [4, 0, 2])
    torch.testing.assert_close(layer(inputs[:, [4, 0, 2]]), wanted)
    assert layer.in_features == 3


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_type_device_and_requires_grad_stay_and_no_gradient_is_recorded(device: str) -> None:
    layer = nn.Linear(5, 4, device=device, dtype=torch.bfloat16).requires_grad_(requires_grad=False)
    keep_rows(layer, [0, 1])
    keep_columns(layer, [0, 1, 2])
    assert layer.weight.shape == (2, 3)
    for parameter in layer.parameters():
        assert (parameter.dtype, parameter.device.type, parameter.requires_grad) == (torch.bfloat16, device, False)
        assert parameter.is_leaf
        assert parameter.is_contiguous()


def test_a_layer_without_bias_stays_without() -> None:
    layer = nn.Linear(5, 4, bias=False)
    keep_rows(layer, [0])
    assert layer.bias is None


def test_removed_blocks_leave_the_others_in_order_under_the_first_names() -> None:
    model = nn.Module()
    model.listed = nn.ModuleList(nn.Linear(1, index) for index in range(1, 5))
    model.named = nn.Sequential()
    for index in range(1, 5):
        model.named.add_module(f"encoder_layer_{index - 1}", nn.Linear(1, index))
    for path, names in (("listed", ["0", "1"]), ("named", ["encoder_layer_0", "encoder_layer_1"])):
        remove_blocks(model, path, [0, 2])
        kept = model.get_submodule(path)
        assert dict(kept.named_children()).keys() == set(names)
        assert [block.out_features for block in kept] == [2, 4]  # type: ignore[attr-defined]


def test_a_replaced_module_takes_over_the_training_mode() -> None:
    model = nn.Sequential(nn.Sequential(nn.Dropout())).eval()
    replace_module(model, "0.0", nn.Dropout(0.5))
    assert not model[0][0].training
    replace_module(model, "0", nn.Identity())
    assert isinstance(model[0], nn.Identity)


def test_stacked_layers_give_the_outputs_of_each_and_unstacking_gives_them_back() -> None:
    layers = [nn.Linear(5, 2), nn.Linear(5, 3, bias=False), nn.Linear(5, 1)]
    inputs = torch.randn(2, 5)
    whole = stacked(layers)
    torch.testing.assert_close(whole(inputs), torch.cat([layer(inputs) for layer in layers], dim=1))
    again = unstacked(whole, [2, 3, 1])
    for layer, part in zip(layers, again, strict=True):
        torch.testing.assert_close(part(inputs), layer(inputs))
    assert again[0].weight.untyped_storage().data_ptr() != whole.weight.untyped_storage().data_ptr()


def test_layers_without_any_bias_are_stacked_and_cut_without() -> None:
    whole = stacked([nn.Linear(5, 2, bias=False), nn.Linear(5, 3, bias=False)])
    assert whole.bias is None
    assert [part.bias for part in unstacked(whole, [2, 3])] == [None, None]


def test_linear_of_shares_the_tensors_it_is_given() -> None:
    weight, bias = torch.randn(3, 2), torch.randn(3)
    layer = linear_of(weight, bias, requires_grad=False)
    assert layer.weight.data_ptr() == weight.data_ptr()
    assert (layer.in_features, layer.out_features, layer.weight.requires_grad) == (2, 3, False)
