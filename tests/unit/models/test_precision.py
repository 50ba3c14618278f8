from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING

import pytest
import torch

from pah_opt.models import precision
from pah_opt.models.precision import mixed, multiplies_bf16, multiplies_int8

if TYPE_CHECKING:
    from collections.abc import Callable

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


def test_int8_products_are_asked_of_x86_cpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert not multiplies_int8(CPU)
    assert multiplies_int8(torch.device("cuda"))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert multiplies_int8(CPU)


@pytest.mark.skipif(multiplies_int8(CPU), reason="this CPU has int8 products")
def test_without_them_int8_is_slower_than_float32() -> None:
    left, right = torch.ones(32, 128), torch.ones(128, 128)
    whole = left.to(torch.int8), right.to(torch.int8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for one another would be timed
    try:
        assert best(lambda: torch._int_mm(*whole)) > 3 * best(lambda: left @ right)
    finally:
        torch.set_num_threads(threads)


def best(call: Callable[[], object], tries: int = 50) -> float:
    times = []
    for _ in range(tries):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)
