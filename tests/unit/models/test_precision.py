from __future__ import annotations

import pytest
import torch

from pah_opt.models import precision
from pah_opt.models.precision import mixed, multiplies_bf16

CPU = torch.device("cpu")


def product() -> torch.dtype:
    return (torch.ones(4, 4) @ torch.ones(4, 4)).dtype


@pytest.mark.parametrize(
    ("wanted", "supported", "found"),
    [("bf16", True, torch.bfloat16), ("bf16", False, torch.float32), ("no", True, torch.float32)],
)
def test_products_are_in_bfloat16_only_where_the_device_multiplies_it(
    wanted: precision.Precision, supported: bool, found: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda _: supported)
    with mixed(wanted, CPU):
        assert product() == found
    assert product() == torch.float32


def test_a_cpu_is_asked_and_a_gpu_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert multiplies_bf16(torch.device("cuda"))
    assert multiplies_bf16(CPU) == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not multiplies_bf16(CPU)
