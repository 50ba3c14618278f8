"""With ``torch.set_default_device``, images, labels and files stay on the CPU, where they are expected.

Users set it to ``cuda``; ``meta`` stands in for it here: whatever lands there by mistake has no values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import pah_opt
from pah_opt import Recipe, Step
from pah_opt.measure.settings import MeasureSettings
from pah_opt.testing import tiny_data, tiny_vit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

    from pah_opt import Data

QUICK = MeasureSettings.quick(
    batch_sizes=(1,), warmup_s=0.0, warmup_iters=1, block_ms=1.0, min_rounds=3, max_rounds=3, throughput_s=0.02
)


@pytest.fixture(scope="module")
def data() -> Data:
    return tiny_data()


@pytest.fixture
def model() -> nn.Module:
    return tiny_vit()


@pytest.fixture(autouse=True)
def elsewhere(data: Data, model: nn.Module) -> Iterator[None]:
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize(
    "steps",
    [
        (Step.of("structured-pruning", mlp=0.5), Step.of("reconstruct", images=32)),
        (Step.of("sparsegpt", sparsity=0.5, images=32), Step.of("recover", epochs=1)),
        (Step.of("torchao", scheme="int8-static", images=32),),
        (Step.of("torchao", scheme="int4-weight-only", group_size=16, images=32),),
        (Step.of("bitsandbytes", scheme="nf4"),),
    ],
    ids=lambda steps: steps[-1].use,
)
def test_steps_are_run_and_saved(model: nn.Module, data: Data, steps: tuple[Step, ...], tmp_path: Path) -> None:
    made = pah_opt.apply(model, Recipe(steps=steps), data, on_collapse="ignore")
    made.save(tmp_path / "artifact")
    assert pah_opt.load(tmp_path / "artifact", verify=True).tags == made.tags


def test_models_are_compared(model: nn.Module, data: Data) -> None:
    report = pah_opt.compare({"dense": model, "same": model}, data, settings=QUICK)
    assert report.model("same").accuracy.agreement_with_baseline == 1.0


def test_models_are_adapted(model: nn.Module, data: Data) -> None:
    assert pah_opt.adapt(model, data, mode="last-layers", last_blocks=1, epochs=1).model is not None
