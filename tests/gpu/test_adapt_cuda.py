"""Adapting a model that is on the CPU in a process whose device is a CUDA one, as under ``accelerate launch``."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pah_opt import Data
from pah_opt.adapt import adaptation, training
from pah_opt.adapt.adaptation import adapt
from pah_opt.adapt.processes import Processes
from pah_opt.data import TensorSplit
from pah_opt.progress import Progress
from pah_opt.testing.models import tiny_vit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device can be used here"),
]
CUDA = torch.device("cuda", 0)


class OnCuda(Processes):
    def __init__(self, device: torch.device, precision: Any) -> None:
        super().__init__(device, precision)
        self.device = CUDA


def coloured(count: int, seed: int) -> TensorSplit:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    pixels = 0.3 * torch.randn(count, 3, 16, 16, generator=generator)
    pixels[torch.arange(count), labels] += 1.0
    return TensorSplit(pixels, labels, ("a", "b", "c"), f"coloured-{seed}")


@pytest.mark.parametrize("mode", ["full", "last-layers", "head", "lora"])
def test_model_is_adapted_on_the_processs_device_and_comes_back(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (adaptation, training):
        monkeypatch.setattr(module, "Processes", OnCuda)
    seen: set[torch.device] = set()
    model = tiny_vit(classes=7, image=16, blocks=3)
    model.get_submodule("vit.layers.2").register_forward_pre_hook(lambda _m, args: seen.add(args[0].device))
    options: dict[str, Any] = {} if mode == "head" else {"epochs": 1, "batch_size": 16}
    if mode == "last-layers":
        options["last_blocks"] = 1
    result = adapt(model, Data(test=coloured(30, 2), train=coloured(60, 0)), mode, progress=Progress(), **options)
    assert seen == {CUDA}
    assert {value.device.type for value in result.model.state_dict().values()} == {"cpu"}
    assert result.test.accuracy > 0.5
