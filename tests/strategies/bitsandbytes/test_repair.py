"""Four bits with errors made up for on calibration images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pah_opt
from pah_opt.data import TensorSplit
from pah_opt.environment import Environment
from pah_opt.errors import DataError, RecipeError
from pah_opt.measure.tensors import dense_values
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.optimizer import Context
from pah_opt.strategies.bitsandbytes import Bitsandbytes
from pah_opt.strategies.bitsandbytes.config import BitsandbytesConfig
from pah_opt.strategies.bitsandbytes.fourbit import rounded
from pah_opt.strategies.bitsandbytes.modules import LayerKind, quantized, repaired, takes_repair
from pah_opt.testing import tiny_data, tiny_images, tiny_vit

KINDS: list[dict[str, Any]] = [
    {"scheme": "nf4"}, {"scheme": "fp4", "blocksize": 32}, {"scheme": "nf4", "double_quant": True, "blocksize": 32},
]  # fmt: skip


def correlated(columns: int = 128, rows: int = 800) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    mixing = torch.randn(columns // 3, columns, generator=generator)
    noise = 0.05 * torch.randn(rows, columns, generator=generator)
    return torch.randn(rows, columns // 3, generator=generator) @ mixing + noise


def layer(columns: int = 128) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(columns, 48)


@pytest.mark.parametrize("parameters", KINDS, ids=str)
def test_outputs_err_by_far_less_than_with_each_weight_rounded_alone(parameters: dict[str, Any]) -> None:
    kind, inputs, plain = LayerKind.of(BitsandbytesConfig(**parameters)), correlated(), layer()
    moment = inputs.T @ inputs / len(inputs)
    with torch.no_grad():
        wanted = plain(inputs)
        alone, better = quantized(plain, kind)(inputs), repaired(plain, kind, moment)(inputs)
    assert float((better - wanted).norm()) < 0.7 * float((alone - wanted).norm())


@pytest.mark.parametrize("parameters", KINDS[:2], ids=str)
def test_packed_values_are_the_ones_that_were_chosen(parameters: dict[str, Any]) -> None:
    """The library must unpack them in the order in which they were packed."""
    kind, plain = LayerKind.of(BitsandbytesConfig(**parameters)), layer()
    packed, state = rounded(plain.weight.detach(), torch.eye(128), kind)
    numbers = torch.stack([packed.reshape(-1) >> 4, packed.reshape(-1) & 15], dim=1).reshape(-1)
    chosen = state.code[numbers.long()].reshape(-1, kind.blocksize) * state.absmax.unsqueeze(1)
    made: Any = repaired(plain, kind, torch.eye(128))
    assert torch.allclose(dense_values(made.weight).reshape(-1), chosen.reshape(-1), atol=1e-6)


def test_rows_that_no_whole_block_fills_are_rounded_alone() -> None:
    assert not takes_repair(layer(96), LayerKind.of(BitsandbytesConfig()))
    assert takes_repair(layer(96), LayerKind.of(BitsandbytesConfig(blocksize=32)))


def apply(**parameters: Any) -> Any:
    model = tiny_vit(hidden=64, mlp=96, blocks=2)
    return pah_opt.apply(
        model, pah_opt.Recipe(steps=[pah_opt.Step.of("bitsandbytes", **parameters)]), tiny_data(), on_collapse="ignore"
    )


def test_images_decide_how_it_is_rounded_and_the_record_says_so(tmp_path: Any) -> None:
    artifact = apply()
    achieved = artifact.steps[0].achieved
    assert achieved["rounding"] == {"gptq": 2 * 5, "nearest": 2}  # no whole block fills a row of fc2
    assert achieved["calibration_images"] > 0
    assert apply(rounding="nearest").steps[0].achieved["rounding"] == {"gptq": 0, "nearest": 12}
    artifact.save(tmp_path / "nf4")
    images = tiny_images(4, seed=7)
    with torch.no_grad():
        assert torch.equal(pah_opt.load(tmp_path / "nf4").model(images).logits, artifact.model(images).logits)


def test_asking_for_repair_without_images_is_refused_with_the_way_out() -> None:
    recipe = pah_opt.Recipe(steps=[pah_opt.Step.of("bitsandbytes", rounding="gptq")])
    with pytest.raises(RecipeError, match="set rounding: nearest"):
        pah_opt.apply(tiny_vit(hidden=64), recipe)


def bad_images(kind: str) -> TensorSplit | None:
    if kind == "none":
        return None
    pixels = tiny_images(12, image=48 if kind == "shape" else 32)
    split = TensorSplit(pixels, torch.arange(12) % 10, [str(label) for label in range(10)])
    if kind == "nan":  # a split is checked when it is made
        split.pixel_values[-1, 0, 0, 0] = float("nan")
    return split.subset([0]) if kind == "one" else split


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "at least 8 calibration images and has 0"),
        ("one", "at least 8 calibration images and has 1"),
        ("nan", "hold NaN or infinity"),
        ("shape", r"48, 48\), the model takes \(batch, 3, 32, 32\)"),
    ],
)
def test_calibration_images_that_cannot_be_used_are_refused_before_any_layer_changes(kind: str, message: str) -> None:
    model = tiny_vit(hidden=64, mlp=128, blocks=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapter = find_adapter(model, pah_opt_model_adapters())
    context = Context(adapter, Environment(), calibration=bad_images(kind))
    with pytest.raises(DataError, match=message):
        Bitsandbytes().apply(model, BitsandbytesConfig(rounding="gptq"), context)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_rows_of_zeros_do_not_spoil_the_scales_of_others() -> None:
    plain = nn.Linear(128, 64)
    with torch.no_grad():
        plain.weight.normal_(std=0.005)
        plain.weight[:16] = 0.0
    wanted = plain.weight.detach().clone()
    errors = []
    for double_quant in (False, True):
        kind = LayerKind.of(BitsandbytesConfig(scheme="nf4", double_quant=double_quant))
        made: Any = repaired(plain, kind, torch.eye(128))
        values = dense_values(made.weight)
        assert bool((values[:16] == 0).all()) or double_quant
        errors.append(float((values - wanted).norm()))
    assert errors[1] < 1.02 * errors[0]
