"""Counted sizes are those of the model itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.strategies.structured.sizes import Sizes, shapes_of
from pah_opt.testing import TINY_MODELS, tiny_images


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_totals_of_the_dense_model_are_what_it_holds_and_computes(name: str) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model: Any = TINY_MODELS[name]()
    adapter = find_adapter(model, tuple(pah_opt_model_adapters()))
    model = adapter.prepare(model)
    layout = adapter.layout(model)
    totals = Sizes.of(model, layout).totals(shapes_of(layout))
    assert totals["params"] == sum(parameter.numel() for parameter in model.parameters())
    assert totals["size"] >= 4 * totals["params"]
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(tiny_images(1))
    assert totals["macs"] == counter.get_total_flops() // 2


def test_half_precision_halves_the_bytes() -> None:
    model = TINY_MODELS["hf-vit"]()
    adapter = find_adapter(model, tuple(pah_opt_model_adapters()))
    layout = adapter.layout(model)
    full = Sizes.of(model, layout).totals(shapes_of(layout))["size"]
    assert Sizes.of(model.half(), layout).totals(shapes_of(layout))["size"] == full // 2
