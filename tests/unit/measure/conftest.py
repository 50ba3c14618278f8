"""Tiny real models and images; everything here takes milliseconds."""

# ruff: noqa: N802

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from pah_opt.data import TensorSplit
from pah_opt.measure.candidate import Candidate
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry

if TYPE_CHECKING:
    from pah_opt.layout import ModelAdapter

MakeVit = Callable[..., nn.Module]
SMALL = {
    "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "num_hidden_layers": 2, "image_size": 16,
    "patch_size": 8, "num_labels": 10,
}  # fmt: skip


def vit(seed: int = 0, **changes: Any) -> nn.Module:
    """Make a seeded ViT of two blocks."""
    torch.manual_seed(seed)
    return ViTForImageClassification(ViTConfig(**{**SMALL, **changes})).eval()


@pytest.fixture
def make_vit() -> MakeVit:
    return vit


@pytest.fixture
def model() -> nn.Module:
    return vit()


@pytest.fixture
def adapter(model: nn.Module) -> ModelAdapter:
    return find_adapter(model, default_registry().adapters)


@pytest.fixture
def candidate(model: nn.Module) -> Candidate:
    return Candidate.of("dense", model, default_registry().adapters)


@pytest.fixture
def split(model: nn.Module) -> TensorSplit:
    """Images on which the model is right three times out of four."""
    pixels = torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = model(pixels).logits.argmax(dim=1)
    labels[::4] = (labels[::4] + 1) % 10
    return TensorSplit(pixels, labels, tuple("abcdefghij"), "made up")


class NVMLError(Exception):
    """As in pynvml."""


class RecordedNvml:
    """What ``pynvml`` answers for an H100 under load, without one.

    It stands in for the module; ``missing`` functions answer that they are not supported.

    Energy is counted in millijoules and rises by 70 J a query; power is in milliwatts.
    """

    NVML_CLOCK_SM = 1

    def __init__(self, *, missing: tuple[str, ...] = (), processes: tuple[tuple[int, int], ...] = ()) -> None:
        self.missing = missing
        self.found = processes or ((os.getpid(), 3_221_225_472),)
        self.energy = itertools.count(5_000_000_000, 70_000)
        self.power = itertools.cycle([690_000, 700_000, 710_000])
        self.mask = 0x4 | 0x1
        self.initialised = 0

    def _supported(self, name: str) -> None:
        if name in self.missing:
            raise NVMLError("Not Supported")

    def nvmlInit(self) -> None:
        self._supported("nvmlInit")
        self.initialised += 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if not uuid.startswith("GPU-"):
            raise NVMLError("Invalid Argument")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        self._supported("energy")
        return next(self.energy)

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        self._supported("power")
        return next(self.power)

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int) -> int:
        assert kind == self.NVML_CLOCK_SM
        self._supported("clock")
        return 1755

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> SimpleNamespace:
        self._supported("utilization")
        return SimpleNamespace(gpu=98, memory=41)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:
        self._supported("throttle")
        return self.mask

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[SimpleNamespace]:
        self._supported("processes")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.found]

    def nvmlDeviceGetMigMode(self, handle: Any) -> tuple[int, int]:
        self._supported("mig")
        return 0, 0

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"550.54.15"


@pytest.fixture
def recorded_nvml() -> type[RecordedNvml]:
    return RecordedNvml
