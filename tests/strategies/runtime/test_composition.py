"""Long recipes in every family, saved and loaded again; all pairs, compiled ones too, are in ../test_pairs.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from pah_opt import Step
from pah_opt.testing import TINY_MODELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from conftest import Apply

CHAINS = {
    "pruned, then everything": (
        Step.of("structured-pruning", heads=0.25, mlp=0.5), Step.of("fused-qkv"), Step.of("cast"),
        Step.of("input-size", size=16),
    ),
    "smaller, pruned, quantized": (
        Step.of("input-size", size=16), Step.of("structured-pruning", heads=0.5, mlp=0.5),
        Step.of("torchao", scheme="int8-dynamic"),
    ),
    "fused before pruning": (Step.of("fused-qkv"), Step.of("structured-pruning", heads=0.5, mlp=0.5)),
    "fused before four bits": (Step.of("fused-qkv"), Step.of("bitsandbytes", scheme="nf4")),
    "fused before a narrower embedding": (Step.of("fused-qkv"), Step.of("width-pruning", ratio=0.25)),
    "fewer blocks in half precision": (Step.of("depth-pruning", count=1), Step.of("cast", dtype="fp16")),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_a_chain_of_steps_runs_and_comes_back_from_disk_with_the_same_logits(
    name: str, chain: str, apply: Apply, reloaded: Callable[[Any], nn.Module], logits: Callable[..., Any]
) -> None:
    # timm has one product for query, key and value from the start.
    steps = [step for step in CHAINS[chain] if not (name == "timm-vit" and step.use == "fused-qkv")]
    artifact = apply(TINY_MODELS[name](blocks=3, hidden=64), *steps)
    size = 16 if any(step.use == "input-size" for step in steps) else 32
    assert torch.equal(logits(reloaded(artifact), size), logits(artifact.model, size))
