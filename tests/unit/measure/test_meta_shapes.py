from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pah_opt.measure.meta_shapes import RULES, MetaShapes
from pah_opt.testing import TINY_MODELS

META = torch.device("meta")


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, device=META, dtype=dtype)


def flops_of(model: nn.Module, pixels: Tensor, *, short: bool) -> tuple[int, Any]:
    counter = FlopCounterMode(display=False)
    with MetaShapes() if short else nullcontext(), counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        output = model(pixels)
    return counter.get_total_flops(), getattr(output, "logits", output)


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_family_has_the_flops_and_the_output_that_torchs_own_rules_give(name: str, dtype: torch.dtype) -> None:
    model = TINY_MODELS[name]().to(META, dtype).eval()
    pixels = meta(2, 3, 32, 32, dtype=dtype)
    (wanted, expected), (found, output) = (flops_of(model, pixels, short=short) for short in (False, True))
    assert found == wanted > 0
    assert (output.shape, output.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize(
    "call",
    [
        lambda: functional.linear(meta(2, 4), meta(3, 4), meta(3)),
        lambda: functional.linear(meta(2, 4), meta(3, 4)),
        lambda: functional.layer_norm(meta(2, 5, 4), (5, 4), meta(5, 4), meta(5, 4)),
        lambda: functional.layer_norm(meta(2, 5, 4), (4,)),
        lambda: torch.ops.aten.native_layer_norm(meta(2, 5, 4), (4,), None, None, 1e-5),
        lambda: functional.softmax(meta(2, 4, dtype=torch.bfloat16), dim=-1, dtype=torch.float32),
        lambda: functional.gelu(meta(2, 4).T),
        lambda: meta(2, 4) + meta(4),
        lambda: meta(2, 4, dtype=torch.bfloat16) + meta(2, 4),
        lambda: torch.add(meta(2, 4), meta(2, 4), alpha=2),
        lambda: meta(2, 4, dtype=torch.int64) * 0.5,
        lambda: 1 + meta(2, 4),
    ],
)  # fmt: skip
def test_one_operation_gives_what_torch_gives(call: Any) -> None:
    wanted = call()
    with MetaShapes():
        found = call()
    for one, other in zip(*((each,) if isinstance(each, Tensor) else each for each in (wanted, found)), strict=True):
        assert (one.shape, one.dtype, one.stride(), one.device) == (other.shape, other.dtype, other.stride(), META)


@pytest.mark.parametrize(
    "call",
    [
        lambda: functional.linear(meta(2, 4), meta(3, 5), meta(3)),
        lambda: functional.linear(meta(2, 4), meta(3, 4), meta(2)),
        lambda: functional.layer_norm(meta(2, 4), (5,)),
        lambda: meta(2, 4) @ meta(3, 4),
    ],
)
def test_what_does_not_fit_fails_as_it_does_in_torch(call: Any) -> None:
    with pytest.raises(RuntimeError), MetaShapes():
        call()


def test_values_are_computed_where_there_are_any() -> None:
    left, right = torch.ones(2, 3), torch.ones(3, 2)
    with MetaShapes():
        assert torch.equal(left @ right, torch.full((2, 2), 3.0))


def test_every_rule_is_for_an_operation_that_torch_has() -> None:
    assert all(isinstance(operation, torch._ops.OpOverload) for operation in RULES)
