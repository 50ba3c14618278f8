"""On a real, trained Vision Transformer and real images: what the tiny models only suggest."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pah_opt
from pah_opt.environment import Environment
from pah_opt.optimizer import Context
from pah_opt.strategies.torchao import Torchao, TorchaoConfig

FOLDER = Path(os.environ.get("PAH_OPT_DATA", Path(__file__).parents[4] / "shared" / "data"))
pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(not (FOLDER / "dinov2-small").is_dir(), reason=f"no dinov2-small in {FOLDER}"),
]


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    from pah_opt.models import load_model

    return load_model(FOLDER / "dinov2-small", num_labels=10).model


@pytest.fixture(scope="module")
def real() -> pah_opt.Data:
    from pah_opt.data import load_data

    return load_data(FOLDER / "cifar10" / "plain_text", FOLDER / "dinov2-small", train_limit=20, test_limit=6)


@torch.no_grad()
def features(model: nn.Module, data: pah_opt.Data) -> torch.Tensor:
    (batch,) = data.test.batches(6)
    tokens = model.dinov2(batch.pixel_values).last_hidden_state
    return torch.cat((tokens[:, 0], tokens[:, 1:].mean(dim=1)), dim=1)


def error(dense: nn.Module, data: pah_opt.Data, adapter: Callable[..., Any], **parameters: Any) -> float:
    """Relative error of what the classifier sees of held-out images, their common part taken out."""
    context = Context(adapter(dense), Environment(), calibration=data.train)
    model = Torchao().apply(copy.deepcopy(dense), TorchaoConfig(batch_size=10, **parameters), context)
    wanted, got = features(dense, data), features(model, data)
    return float((got - wanted).norm() / (wanted - wanted.mean(dim=0)).norm())


def test_int8_defaults_hardly_change_features_and_naive_static_does(
    dense: nn.Module, real: pah_opt.Data, adapter: Callable[..., Any]
) -> None:
    # Four blocks of twelve: where torch multiplies int8 in a loop (no VNNI), all of them take three minutes.
    some = {"include": ("*.[2-5].*",)}
    static = error(dense, real, adapter, scheme="int8-static", **some)
    assert static < 0.1
    assert error(dense, real, adapter, scheme="int8-static", naive=True, **some) > 1.5 * static
    late = {"include": ("*.[89].*",)}
    dynamic, static = (error(dense, real, adapter, scheme=scheme, **late) for scheme in ("int8-dynamic", "int8-static"))
    assert dynamic < static


def test_gptq_beats_plain_rounding_to_four_bits(
    dense: nn.Module, real: pah_opt.Data, adapter: Callable[..., Any]
) -> None:
    plain, gptq = (
        error(dense, real, adapter, scheme="int4-weight-only", rounding=rounding, include=("*.[0-3].*",))
        for rounding in ("nearest", "gptq")
    )
    assert gptq < 0.8 * plain
