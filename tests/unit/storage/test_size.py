"""stored_bytes says what the file will hold, before it is written."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.errors import ArtifactError
from pah_opt.storage import stored_bytes
from pah_opt.storage.weights import Weights
from pah_opt.storage.writer import write_weights

WIDTH = 128


def layers(count: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(count))).eval()


def masked(share: float) -> nn.Sequential:
    model = layers()
    for layer in model:
        layer.weight.data *= torch.rand_like(layer.weight) >= share
    return model


def quantized(config: str, **options: Any) -> nn.Sequential:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao import quantization

        model = layers()
        quantization.quantize_(model, getattr(quantization, config)(**options))
    return model


def four_bit(*, double: bool) -> nn.Module:
    from bitsandbytes.nn import Linear4bit

    return nn.Sequential(Linear4bit(WIDTH, WIDTH, quant_type="nf4", compress_statistics=double)).to("cpu").eval()


def tied() -> nn.Module:
    model = layers()
    model[1].weight = model[0].weight
    return model


MODELS = {
    "dense": layers,
    "half": lambda: masked(0.5),
    "sparse": lambda: masked(0.95),
    "tied": tied,
    "bfloat16": lambda: layers().bfloat16(),
    "int8": lambda: quantized("Int8WeightOnlyConfig", version=2),
    "int8-dynamic": lambda: quantized("Int8DynamicActivationInt8WeightConfig", version=2),
    "fp8": lambda: quantized("Float8WeightOnlyConfig"),
    "int4": lambda: quantized("IntxWeightOnlyConfig", weight_dtype=torch.int4),
    "nf4": lambda: four_bit(double=False),
    "nf4-double": lambda: four_bit(double=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_stored_bytes_is_the_size_of_the_file(name: str) -> None:
    model = MODELS[name]()
    file = io.BytesIO()
    digest = write_weights(file, Weights.of(model))
    assert stored_bytes(model) == len(file.getvalue()) == digest.size


def test_sizes_follow_what_is_stored() -> None:
    dense = stored_bytes(layers())
    assert stored_bytes(masked(0.5)) < 0.56 * dense
    assert stored_bytes(masked(0.9)) < 0.16 * dense
    assert stored_bytes(quantized("Int8WeightOnlyConfig", version=2)) < 0.29 * dense
    assert stored_bytes(quantized("IntxWeightOnlyConfig", weight_dtype=torch.int4)) < 0.2 * dense
    assert stored_bytes(quantized("Float8WeightOnlyConfig")) < 0.29 * dense
    assert stored_bytes(tied()) < 0.68 * dense


@pytest.mark.parametrize("share", [0.0, 0.01, 0.03, 0.05, 0.2, 0.99, 1.0])
def test_a_masked_model_is_never_larger_than_the_dense_one(share: float) -> None:
    assert stored_bytes(masked(share)) <= stored_bytes(layers())


def test_a_model_without_values_counts_as_dense() -> None:
    assert stored_bytes(layers().to("meta")) == stored_bytes(layers())


def test_counting_changes_nothing() -> None:
    model = four_bit(double=True)
    inputs = torch.randn(2, WIDTH)
    with torch.no_grad():
        before = model(inputs)
        stored_bytes(model)
        assert torch.equal(model(inputs), before)


def test_buffers_that_state_dicts_leave_out_are_stored() -> None:
    model = layers(1)
    small = stored_bytes(model)
    model.register_buffer("grid", torch.randn(WIDTH), persistent=False)
    assert stored_bytes(model) >= small + 4 * WIDTH


def test_a_tensor_that_cannot_be_stored_is_named() -> None:
    model = layers(1)
    model.weight = nn.Parameter(torch.eye(4).to_sparse())
    with pytest.raises(ArtifactError, match=r"weight has layout torch\.sparse_coo.*to_dense"):
        stored_bytes(model)


def test_a_bitsandbytes_layer_that_is_not_quantized_yet_is_refused() -> None:
    from bitsandbytes.nn import Linear4bit

    with pytest.raises(ArtifactError, match="not quantized yet"):
        stored_bytes(nn.Sequential(Linear4bit(64, 64)))
