"""bitsandbytes on a CUDA device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pah_opt
from pah_opt.testing import tiny_images, tiny_vit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none"),
]
KINDS: list[dict[str, Any]] = [
    {"scheme": "int8"},
    {"scheme": "nf4"},
    {"scheme": "fp4"},
    {"scheme": "nf4", "double_quant": True},
]


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(tiny_images(4, seed=7).cuda()).logits.float()


def quantized(model: nn.Module, **parameters: Any) -> pah_opt.Artifact:
    return pah_opt.apply(model, pah_opt.Recipe(steps=[pah_opt.Step.of("bitsandbytes", **parameters)]))


@pytest.mark.parametrize("parameters", KINDS, ids=str)
def test_every_scheme_is_quantized_on_the_device_and_stays_close(parameters: dict[str, Any]) -> None:
    model = tiny_vit(hidden=64, mlp=128).cuda()
    wanted = logits(model)
    artifact = quantized(model, **parameters)
    weight = artifact.model.vit.layers[0].mlp.fc1.weight
    assert weight.device.type == "cuda"
    assert weight.dtype in (torch.int8, torch.uint8)
    assert float((logits(artifact.model) - wanted).norm() / wanted.norm()) < 0.4


@pytest.mark.parametrize("parameters", KINDS, ids=str)
def test_artifacts_made_on_the_cpu_run_on_cuda(parameters: dict[str, Any], tmp_path: Path) -> None:
    artifact = quantized(tiny_vit(hidden=64, mlp=128), **parameters)
    artifact.save(tmp_path / "quantized")
    moved = pah_opt.load(tmp_path / "quantized", device="cuda").model
    with torch.no_grad():
        wanted = artifact.model(tiny_images(4, seed=7)).logits
    assert torch.allclose(logits(moved).cpu(), wanted, atol=0.05 * float(wanted.abs().max()))
