from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

from pah_opt.errors import UnsupportedModelError
from pah_opt.models import logits_of
from pah_opt.testing import tiny_images, tiny_vit


class Output(NamedTuple):
    logits: torch.Tensor


LOGITS = torch.zeros(2, 3)


@pytest.mark.parametrize("output", [LOGITS, Output(LOGITS), {"logits": LOGITS, "loss": None}])
def test_logits_are_found_in_a_tensor_an_object_and_a_mapping(output: Any) -> None:
    assert logits_of(output) is LOGITS


def test_logits_are_found_in_what_transformers_returns() -> None:
    assert logits_of(tiny_vit()(tiny_images())).shape == (2, 10)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((LOGITS, LOGITS), r"a tuple of 2 \(Tensor, Tensor\)"),
        ({"features": LOGITS}, "a dict with the keys features"),
        ({}, r"a dict with the keys \(none\)"),
        (None, "a NoneType"),
        ({"logits": None}, "has no tensor of logits"),
    ],
)
def test_anything_else_is_refused_and_described(output: Any, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        logits_of(output)


def test_a_bare_backbones_output_is_refused_by_its_type() -> None:
    with pytest.raises(UnsupportedModelError, match=r"BaseModelOutputWithPooling.*give a bare backbone a classifier"):
        logits_of(tiny_vit().vit(tiny_images()))


def test_feature_maps_are_no_logits() -> None:
    with pytest.raises(UnsupportedModelError, match=r"shape \(2, 5, 7, 7\); a classifier returns"):
        logits_of(torch.zeros(2, 5, 7, 7))
