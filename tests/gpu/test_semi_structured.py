from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.environment import Environment
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.optimizer import Context
from pah_opt.strategies.unstructured.config import SemiStructuredConfig
from pah_opt.strategies.unstructured.optimizers import SemiStructured
from pah_opt.strategies.unstructured.semi_structured import CAPABILITY, pack_again, packed_layers
from pah_opt.testing import tiny_images, tiny_vit

SEMI = SemiStructured()

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: sparse kernels cannot run"),
    pytest.mark.skipif(
        torch.cuda.is_available() and torch.cuda.get_device_capability() < CAPABILITY,
        reason="the CUDA device is older than compute capability 8.0: it has no sparse tensor cores",
    ),
]


def sparse(dtype: torch.dtype, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    model = tiny_vit(hidden=128, mlp=256).to("cuda", dtype)
    context = Context(find_adapter(model, pah_opt_model_adapters()), Environment())
    config = SemiStructuredConfig(method="magnitude", **options)
    return SEMI.apply(model, config, context), context.achieved


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sparse_kernels_give_the_logits_of_the_pattern(dtype: torch.dtype) -> None:
    pixels = tiny_images(8).to("cuda", dtype)
    pattern, _ = sparse(dtype, kernels="pattern")
    packed, achieved = sparse(dtype, kernels="require")
    assert packed_layers(packed) == list(achieved["layers"])
    assert achieved["kernels"] == "sparse tensor cores in 4 layers"
    with torch.inference_mode():
        assert torch.allclose(packed(pixels).logits, pattern(pixels).logits, rtol=2e-2, atol=2e-2)


def test_a_packed_layer_takes_less_memory() -> None:
    packed, achieved = sparse(torch.float16, kernels="require")
    layer = packed.get_submodule(next(iter(achieved["layers"])))
    names, _ = layer.weight.__tensor_flatten__()
    stored = sum(getattr(layer.weight, name).nbytes for name in names)
    assert stored <= 0.6 * layer.in_features * layer.out_features * 2


def test_float32_keeps_the_pattern_and_says_why() -> None:
    packed, achieved = sparse(torch.float32, kernels="auto")
    assert packed_layers(packed) == []
    assert "float32" in achieved["kernels_reason"]


def test_a_loaded_model_is_packed_again() -> None:
    pattern, achieved = sparse(torch.bfloat16, kernels="pattern")
    paths = list(achieved["layers"])
    assert pack_again(pattern, paths) == paths
    assert packed_layers(pattern) == paths
