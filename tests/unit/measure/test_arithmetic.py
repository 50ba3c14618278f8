from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pah_opt.measure.arithmetic import RULES, FlopCounter
from pah_opt.testing import TINY_MODELS

META = torch.device("meta")


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, device=META, dtype=dtype)


def run(model: nn.Module, pixels: Tensor, counter: Any) -> Any:
    with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        output = model(pixels)
    return getattr(output, "logits", output)


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_every_family_has_the_flops_and_the_output_that_torchs_counter_gives(
    name: str, dtype: torch.dtype, device: str
) -> None:
    model = TINY_MODELS[name]().to(device, dtype).eval()
    pixels = torch.zeros(2, 3, 32, 32, dtype=dtype, device=device)
    torchs, own = FlopCounterMode(display=False), FlopCounter()
    expected, output = run(model, pixels, torchs), run(model, pixels, own)
    assert own.total == torchs.get_total_flops() > 0
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
    with FlopCounter():
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
    with pytest.raises(RuntimeError), FlopCounter():
        call()


def test_values_are_computed_where_there_are_any() -> None:
    left, right = torch.ones(2, 3), torch.ones(3, 2)
    with FlopCounter():
        assert torch.equal(left @ right, torch.full((2, 2), 3.0))


def test_operations_made_of_others_are_counted_whole_or_not() -> None:
    """In inference mode they arrive whole."""
    layer = nn.Linear(4, 3, device=META)
    totals = []
    for mode in (torch.no_grad, torch.inference_mode):
        with FlopCounter() as counter, mode():
            layer(meta(2, 4))
        totals.append(counter.total)
    assert totals == [2 * 2 * 4 * 3] * 2


def test_every_rule_is_for_an_operation_that_torch_has() -> None:
    assert all(isinstance(operation, torch._ops.OpOverload) for operation in RULES)
