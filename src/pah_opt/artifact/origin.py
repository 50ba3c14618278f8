"""What made an artifact: versions and platform."""

from __future__ import annotations

import platform
from typing import Any

from pah_opt.environment import installed_version

LIBRARIES = ("pah-opt", "torch", "transformers", "torchao", "bitsandbytes", "timm", "torchvision", "safetensors")


def environment_of_this_process() -> dict[str, Any]:
    """Return the versions of the libraries that decide logits, and the platform, as JSON data."""
    import torch

    versions = {name: version for name in LIBRARIES if (version := installed_version(name))}
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "cuda_device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
