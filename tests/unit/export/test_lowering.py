"""What is written out in plain operators computes what torchao computes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pah_opt.export.lowering import DynamicInt8Linear, Int8Linear, StaticInt8Linear, lower
from pah_opt.models.quiet import quiet_imports
from pah_opt.testing import tiny_images

from .conftest import ArtifactOf

WIDTH = 64


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("weight-only", Int8Linear),
        ("dynamic", DynamicInt8Linear),
        ("qat", DynamicInt8Linear),
        ("static", StaticInt8Linear),
    ],
)
def test_written_out_layers_give_the_same_logits(kind: str, made: type[nn.Module], artifact_of: ArtifactOf) -> None:
    model = copy.deepcopy(artifact_of(kind).model)
    images = tiny_images(3, seed=5)
    with torch.no_grad():
        before = model(images).logits
        assert lower(model, "torch") == 6
        after = model(images).logits
    assert sum(type(module) is made for module in model.modules()) == 6
    assert (after - before).abs().max() <= 1e-6


@pytest.mark.parametrize("mapping", ["SYMMETRIC", "ASYMMETRIC"])
def test_half_of_the_steps_is_used_where_torchao_uses_half(mapping: str) -> None:
    with quiet_imports():
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, MappingType, quantize_
    model = nn.Sequential(nn.Linear(WIDTH, 32))
    quantize_(
        model,
        Int8DynamicActivationInt8WeightConfig(
            act_mapping_type=MappingType[mapping], reduce_range=True, set_inductor_config=False
        ),
    )
    tokens = torch.randn(2, 9, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(tokens)
        lower(model, "torch")
        after = model(tokens)
    layer = model[0]
    assert isinstance(layer, DynamicInt8Linear)
    assert (layer.low, layer.high) == (-64, 63)
    assert (after - before).abs().max() <= 1e-5


def test_the_copy_that_is_changed_is_not_the_artifacts_own(artifact_of: ArtifactOf) -> None:
    artifact = artifact_of("dynamic")
    kinds = [type(module) for module in artifact.model.modules()]
    lower(copy.deepcopy(artifact.model), "onnx")
    assert [type(module) for module in artifact.model.modules()] == kinds
