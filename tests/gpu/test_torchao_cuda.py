"""torchao's schemes on a CUDA device: the same promises, and the kernels that only run there."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pah_opt
from pah_opt.data import TensorSplit
from pah_opt.testing import tiny_images, tiny_vit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none"),
]
SCHEMES: dict[str, dict[str, Any]] = {
    "int8-weight-only": {},
    "int8-dynamic": {},
    "int8-static": {},
    "int8-qat": {"training": {"steps": 2, "distill": 0}},
    "int4-weight-only": {},
    "fp8-weight-only": {},
}


def capability() -> tuple[int, int]:
    return torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)


def data() -> pah_opt.Data:
    split = TensorSplit(tiny_images(48), torch.arange(48) % 10, [str(i) for i in range(10)])
    return pah_opt.Data(test=split.subset(range(8)), train=split.subset(range(8, 48)))


def quantized(model: nn.Module, **parameters: Any) -> pah_opt.Artifact:
    return pah_opt.apply(model, pah_opt.Recipe(steps=[pah_opt.Step.of("torchao", **parameters)]), data=data())


@pytest.fixture
def vit() -> nn.Module:
    return tiny_vit(hidden=64, mlp=128, blocks=2).cuda()


@torch.no_grad()
def logits(model: nn.Module, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    # 17 tokens an image: int8 products on CUDA need more than 16 rows.
    return model(tiny_images(4, seed=7).to("cuda", dtype)).logits.float()


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_scheme_runs_and_stays_close(vit: nn.Module, scheme: str, dtype: torch.dtype) -> None:
    if scheme == "int8-qat" and dtype is not torch.float32:
        pytest.skip("training keeps float32 weights")
    model = vit.to(dtype)
    wanted = logits(model, dtype)
    artifact = quantized(model, scheme=scheme, **SCHEMES[scheme])
    assert next(artifact.model.parameters()).device.type == "cuda"
    assert float((logits(artifact.model, dtype) - wanted).norm() / wanted.norm()) < 0.3


@pytest.mark.parametrize("scheme", ["int8-dynamic", "int8-static", "int8-weight-only", "int4-weight-only"])
def test_compiled_gives_the_same_answer(vit: nn.Module, scheme: str) -> None:
    model = quantized(vit, scheme=scheme).model
    eager = logits(model)
    compiled = logits(torch.compile(copy.deepcopy(model)))
    assert torch.allclose(compiled, eager, atol=0.03 * float(eager.abs().max()))


@pytest.mark.skipif(capability() < (8, 9), reason="fp8 products need compute capability 8.9")
def test_fp8_dynamic_multiplies_in_fp8(vit: nn.Module) -> None:
    model = vit.to(torch.bfloat16)
    wanted = logits(model, torch.bfloat16)
    artifact = quantized(model, scheme="fp8-dynamic")
    assert artifact.steps[0].after["linear_dtypes"]["fp8"] == 12
    assert float((logits(artifact.model, torch.bfloat16) - wanted).norm() / wanted.norm()) < 0.15


@pytest.mark.skipif(capability() < (8, 9), reason="fp8 products need compute capability 8.9")
def test_fp8_dynamic_takes_tokens_of_zeros(vit: nn.Module) -> None:
    model = vit.to(torch.bfloat16)
    layer: Any = model.get_submodule("vit.layers.0.mlp.fc1")
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    artifact = quantized(model, scheme="fp8-dynamic")
    assert torch.isfinite(logits(artifact.model, torch.bfloat16)).all()


@pytest.mark.skipif(capability() >= (8, 9), reason="this device can multiply in fp8")
def test_fp8_dynamic_is_refused_on_this_older_device(vit: nn.Module) -> None:
    with pytest.raises(pah_opt.errors.RecipeError, match=r"8\.9"):
        quantized(vit.to(torch.bfloat16), scheme="fp8-dynamic")


def test_artifacts_made_on_the_cpu_run_on_cuda(tmp_path: Path) -> None:
    model = tiny_vit(hidden=64, mlp=128)
    for scheme in ("int8-dynamic", "int4-weight-only", "fp8-weight-only"):
        artifact = quantized(model, scheme=scheme)
        artifact.save(tmp_path / scheme)
        moved = pah_opt.load(tmp_path / scheme, device="cuda").model
        with torch.no_grad():
            wanted = artifact.model(tiny_images(4, seed=7)).logits
        assert torch.allclose(logits(moved).cpu(), wanted, atol=0.03 * float(wanted.abs().max()))
