from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from pah_opt.errors import MeasurementError
from pah_opt.measure.model import ModelFigures, count_flops, model_figures
from pah_opt.measure.tensors import held_tensors, tensor_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from pah_opt.layout import ModelAdapter

SHAPE = (1, 3, 16, 16)


def figures(model: nn.Module, adapter: ModelAdapter) -> ModelFigures:
    return model_figures(model, adapter=adapter, example_shape=SHAPE)


def quantized(model: nn.Module, config: Any) -> nn.Module:
    from torchao.quantization import quantize_

    twin = copy.deepcopy(model)
    quantize_(twin, config)
    return twin


def int8_weight_only(model: nn.Module) -> nn.Module:
    from torchao.quantization import Int8WeightOnlyConfig

    return quantized(model, Int8WeightOnlyConfig(version=2))


def int8_dynamic(model: nn.Module) -> nn.Module:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    return quantized(model, Int8DynamicActivationInt8WeightConfig(version=2))


def swapped(model: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    twin = copy.deepcopy(model)
    for path, layer in list(twin.named_modules()):
        if isinstance(layer, nn.Linear) and path != "classifier":  # 4-bit CPU kernels need multiples of 32 rows
            new = make(layer)
            new.load_state_dict(layer.state_dict(), strict=False)
            parent, _, name = path.rpartition(".")
            setattr(twin.get_submodule(parent), name, new.to("cpu"))  # bitsandbytes quantizes in .to
    return twin.eval()


def bnb_int8(model: nn.Module) -> nn.Module:
    import bitsandbytes as bnb

    return swapped(
        model, lambda old: bnb.nn.Linear8bitLt(old.in_features, old.out_features, has_fp16_weights=False, threshold=6.0)
    )


def bnb_nf4(model: nn.Module) -> nn.Module:
    import bitsandbytes as bnb

    return swapped(model, lambda old: bnb.nn.Linear4bit(old.in_features, old.out_features, quant_type="nf4"))


def bnb_fp4_double(model: nn.Module) -> nn.Module:
    import bitsandbytes as bnb

    return swapped(
        model,
        lambda old: bnb.nn.Linear4bit(old.in_features, old.out_features, quant_type="fp4", compress_statistics=True),
    )


QUANTIZED = [int8_weight_only, int8_dynamic, bnb_int8, bnb_nf4, bnb_fp4_double]


@pytest.mark.parametrize("classes", [10, 1000])
def test_vit_b_has_17_6_gmac(classes: int, adapter: ModelAdapter) -> None:
    with torch.device("meta"):
        vit_b = ViTForImageClassification(ViTConfig(num_labels=classes))
    found = model_figures(vit_b, adapter=adapter, example_shape=(1, 3, 224, 224))
    assert found.macs == pytest.approx(17.58e9, rel=0.01)
    assert found.flops == 2 * found.macs
    assert found.params == 85_798_656 + 768 * classes + classes
    assert found.linear_dtypes == {"fp32": 73}


def test_macs_are_counted_by_hand(model: nn.Module, adapter: ModelAdapter) -> None:
    """Two blocks 64 wide on five tokens, with four patches of 8 px."""
    tokens, width, mlp = 5, 64, 128
    block = tokens * (4 * width * width + 2 * width * mlp) + 2 * tokens * tokens * width
    patches = 4 * 3 * 8 * 8 * width
    assert figures(model, adapter).macs == 2 * block + patches + width * 10


def test_macs_are_for_one_image(model: nn.Module, adapter: ModelAdapter) -> None:
    one, _ = count_flops(model, adapter=adapter, example_shape=SHAPE)
    eight, _ = count_flops(model, adapter=adapter, example_shape=(8, 3, 16, 16))
    assert one == eight


@pytest.mark.parametrize("quantize", QUANTIZED)
def test_quantized_models_count_the_macs_and_parameters_of_dense(
    quantize: Callable[[nn.Module], nn.Module], model: nn.Module, adapter: ModelAdapter
) -> None:
    dense, packed = figures(model, adapter), figures(quantize(model), adapter)
    assert packed.macs == dense.macs
    assert packed.params == dense.params


@pytest.mark.parametrize("quantize", QUANTIZED)
def test_a_forward_pass_changes_no_figure(
    quantize: Callable[[nn.Module], nn.Module], model: nn.Module, adapter: ModelAdapter
) -> None:
    packed = quantize(model)
    before = figures(packed, adapter)
    with torch.inference_mode():
        packed(torch.zeros(SHAPE))
    after = figures(packed, adapter)
    # On CPUs with AVX-512 bitsandbytes repacks 4-bit weights in the first forward pass; its scales then take less.
    assert after.weights_bytes <= before.weights_bytes
    assert replace(after, weights_bytes=before.weights_bytes) == before


@pytest.mark.parametrize(
    ("quantize", "types"),
    [
        (int8_weight_only, {"int8": 13}),
        (bnb_int8, {"int8": 12, "fp32": 1}),
        (bnb_nf4, {"nf4": 12, "fp32": 1}),
        (bnb_fp4_double, {"fp4": 12, "fp32": 1}),
    ],
)
def test_linear_types_are_named(
    quantize: Callable[[nn.Module], nn.Module], types: dict[str, int], model: nn.Module, adapter: ModelAdapter
) -> None:
    assert figures(quantize(model), adapter).linear_dtypes == types


def test_bf16_is_named_and_halves_the_bytes(model: nn.Module, adapter: ModelAdapter) -> None:
    dense, half = figures(model, adapter), figures(copy.deepcopy(model).bfloat16(), adapter)
    assert half.linear_dtypes == {"bf16": 13}
    assert half.weights_bytes == dense.weights_bytes // 2
    assert half.macs == dense.macs


def test_int8_bytes_are_one_a_weight_and_its_scales(model: nn.Module) -> None:
    linears = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    added = sum(5 * layer.out_features for layer in linears)  # each row has an fp32 scale and an int8 zero point
    saved = sum(3 * layer.weight.numel() for layer in linears)
    assert tensor_bytes(int8_weight_only(model)) == tensor_bytes(model) - saved + added


def test_4_bit_bytes_are_half_a_byte_a_weight_and_its_scales(model: nn.Module) -> None:
    """Scales are one fp32 for 64 weights; a code book of 16 fp32 values is kept by every layer."""
    packed = bnb_nf4(model)
    linears = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer.out_features % 32 == 0]
    weights = sum(layer.weight.numel() for layer in linears)
    rest = tensor_bytes(model) - 4 * weights
    assert rest + weights // 2 < tensor_bytes(packed) < rest + weights // 2 + weights // 16 + 13 * (16 * 4 + 1500)


def test_a_shared_parameter_counts_once(model: nn.Module, adapter: ModelAdapter) -> None:
    before = figures(model, adapter)
    layers = model.vit.layers
    layers[1].mlp.fc1.weight = layers[0].mlp.fc1.weight
    after = figures(model, adapter)
    assert before.params - after.params == 64 * 128
    assert before.weights_bytes - after.weights_bytes == 4 * 64 * 128


def test_buffers_count_in_bytes_only(model: nn.Module, adapter: ModelAdapter) -> None:
    before = figures(model, adapter)
    model.register_buffer("extra", torch.zeros(7))
    after = figures(model, adapter)
    assert (after.params, after.weights_bytes) == (before.params, before.weights_bytes + 28)


def test_zeros_are_counted(model: nn.Module, adapter: ModelAdapter) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model.vit.layers[0].mlp.fc1.weight.view(-1)[:512] = 0
    found = figures(model, adapter)
    assert found.params_nonzero == found.params - 512
    assert found.sparsity_pct == pytest.approx(100 * 512 / found.params)


def test_zeros_of_4_bit_weights_are_counted_in_values_not_bytes(model: nn.Module, adapter: ModelAdapter) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model.vit.layers[0].mlp.fc1.weight.view(-1)[:512] = 0
    found = figures(bnb_nf4(model), adapter)
    assert found.params_nonzero == found.params - 512


def test_a_model_on_meta_has_shapes_and_no_zero_count(adapter: ModelAdapter, make_vit: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        empty = make_vit()
    found, real = figures(empty, adapter), figures(make_vit(), adapter)
    assert (found.params_nonzero, found.sparsity_pct) == (None, None)
    assert (found.params, found.macs, found.weights_bytes) == (real.params, real.macs, real.weights_bytes)


def test_a_compiled_model_counts_like_an_eager_one(model: nn.Module, adapter: ModelAdapter) -> None:
    eager = figures(model, adapter)
    assert figures(torch.compile(model), adapter) == eager
    model.vit.layers[0] = torch.compile(model.vit.layers[0])
    assert figures(model, adapter) == eager
    in_place = copy.deepcopy(model)
    in_place.compile()
    assert figures(in_place, adapter) == eager


def test_counting_leaves_the_model_as_it_was(model: nn.Module, adapter: ModelAdapter) -> None:
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    figures(model, adapter)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_multihead_attention_is_counted_though_it_has_a_fused_kernel() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0).eval()
    flops, _ = count_flops(nn.Sequential(nn.Flatten(2), nn.Linear(16, 16), layer), example_shape=(1, 5, 4, 4))
    macs = 5 * 16 * 16 + 5 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 5 * 5 * 16
    assert flops == 2 * macs


class LooksAtValues(nn.Module):
    """Cannot run on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) if float(x.sum()) == 0.0 else x


def test_a_forward_pass_that_needs_values_is_counted_with_values() -> None:
    flops, method = count_flops(LooksAtValues(), example_shape=(2, 4))
    assert flops == 2 * 4 * 3
    assert "forward pass" in method


def test_quantized_layers_are_counted_with_values_too() -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = LooksAtValues()
    quantize_(model, Int8WeightOnlyConfig(version=2))
    assert count_flops(model, example_shape=(2, 4))[0] == 2 * 4 * 3


def test_a_model_that_multiplies_nothing_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="Identity multiplies no matrices"):
        count_flops(nn.Identity(), example_shape=(1, 3, 4, 4))


def test_a_failing_forward_pass_is_an_error_that_names_it(model: nn.Module, adapter: ModelAdapter) -> None:
    with pytest.raises(
        MeasurementError, match=r"ViTForImageClassification failed on an input of shape \(1, 5, 16, 16\)"
    ):
        count_flops(model, adapter=adapter, example_shape=(1, 5, 16, 16))


def test_every_tensor_is_held_once(model: nn.Module) -> None:
    model.register_buffer("again", model.classifier.weight.data)
    found = list(held_tensors(model))
    assert len({tensor.data_ptr() for tensor in found}) == len(found)
