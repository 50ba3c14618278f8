"""Tiny artifacts of every kind that is exported or refused, each made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pah_opt
from pah_opt import Artifact, Recipe, Step
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.strategies.torchao.convert import quantize, quantize_static
from pah_opt.strategies.torchao.static import Fixed
from pah_opt.testing import tiny_timm_vit, tiny_vit

NAMES = tuple(f"animal {letter}" for letter in "abcdefghij")
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor", "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3,
    "do_rescale": True, "rescale_factor": 1 / 255, "do_resize": True, "size": {"height": 32, "width": 32},
}  # fmt: skip
LINEARS = 6
"""Linear layers of the one block that most models here have; its classifier stays in float."""


def small_vit(blocks: int = 1) -> nn.Module:
    return tiny_vit(blocks=blocks, hidden=32, heads=4, mlp=64)


def linears_of(model: nn.Module) -> list[str]:
    return [path for path, m in model.named_modules() if isinstance(m, nn.Linear) and "classifier" not in path]


def made(*steps: Step, blocks: int = 1) -> Artifact:
    return pah_opt.apply(small_vit(blocks), Recipe(name="tiny", steps=steps))


def as_is(model: nn.Module) -> Artifact:
    adapter = find_adapter(model, default_registry().adapters)
    recipe = Recipe(name="tiny", steps=(Step.of("magnitude-pruning", sparsity=0.5),))
    return Artifact(
        adapter.prepare(model), recipe, (), adapter.name, weights_origin="random", class_names=NAMES,
        processor=PROCESSOR,
    )  # fmt: skip


def static() -> Artifact:
    """Fixed scales with a zero point and divided inputs, as calibration makes them."""
    model = small_vit()
    for number, path in enumerate(linears_of(model)):
        layer: Any = model.get_submodule(path)
        zero = torch.full((1, 1, 1), 7 - number, dtype=torch.int8)
        divisor = torch.linspace(0.5, 1.5, layer.in_features)
        quantize_static(layer, Fixed(torch.full((1, 1, 1), 0.02), zero, divisor, None, 0.0))
    return as_is(model)


def qat() -> Artifact:
    """The layers that quantization-aware training leaves: tokens are rounded with a zero point."""
    model = small_vit()
    quantize(model, linears_of(model), "int8-qat")
    return as_is(model)


KINDS: dict[str, Callable[[], Artifact]] = {
    "dense": lambda: as_is(small_vit()),
    "timm": lambda: as_is(tiny_timm_vit(blocks=1)),
    "weight-only": lambda: made(Step.of("torchao", scheme="int8-weight-only")),
    "dynamic": lambda: made(Step.of("torchao", scheme="int8-dynamic")),
    "static": static,
    "qat": qat,
    "int4": lambda: made(Step.of("torchao", scheme="int4-weight-only")),
    "fp8": lambda: made(Step.of("torchao", scheme="fp8-weight-only")),
    "nf4": lambda: made(Step.of("bitsandbytes", scheme="nf4")),
    "fp16": lambda: made(Step.of("cast", dtype="fp16")),
    "bf16": lambda: made(Step.of("cast", dtype="bf16")),
    "half": lambda: made(Step.of("structured-pruning", heads=0.5, mlp=0.5)),
    "uneven": lambda: made(Step.of("structured-pruning", heads=0.3, mlp=0.3, scope="global"), blocks=2),
    "fused": lambda: made(Step.of("fused-qkv")),
    "compiled": lambda: made(Step.of("input-size", size=48), Step.of("compile", backend="aot_eager")),
}

ArtifactOf = Callable[[str], Artifact]


@pytest.fixture(scope="session")
def artifact_of() -> ArtifactOf:
    """Return a kind's artifact, never to be changed."""
    return cache(lambda kind: KINDS[kind]())


@pytest.fixture(scope="session")
def saved(artifact_of: ArtifactOf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dense artifact's folder, never to be changed."""
    return artifact_of("dense").save(tmp_path_factory.mktemp("export") / "tiny")


@pytest.fixture(scope="session")
def needs_onnx() -> None:
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library, reason="needs the extra export")
