"""What this machine has, what each strategy can use of it, and what to do about the rest."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

from pah_opt.adapt.backend import ACCELERATE
from pah_opt.environment import Backend, Environment, Obstacle, installed_version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pah_opt.registry import Registry

OPTIONAL: Mapping[str, Backend] = {
    "GPU energy, clocks, utilization": Backend("nvidia-ml-py", ">=12.560", "pip install 'pah-opt[gpu]'"),
    "reading data sets": Backend("datasets", ">=4,<6", "pip install 'pah-opt[data]'"),
    "training on several devices": ACCELERATE,
    "PNG plots": Backend("matplotlib", ">=3.9", "pip install 'pah-opt[plots]'"),
    "compressed artifacts": Backend("zstandard", ">=0.23", "pip install 'pah-opt[zstd]'"),
}
"""What the extras are for."""


def diagnose(registry: Registry, environment: Environment | None = None) -> dict[str, Any]:
    """Look at this machine.

    Returns:
        JSON data: ``machine``, ``gpus``, ``strategies`` (each with its obstacles), ``optional`` libraries, and
        ``plugins`` that were left out, each with the remedy.
    """
    environment = environment or Environment()
    return {
        "machine": _machine(),
        "gpus": _gpus(),
        "strategies": [_strategy(name, entry.optimizer, environment) for name, entry in registry.optimizers.items()],
        "optional": [_optional(purpose, backend, environment) for purpose, backend in OPTIONAL.items()],
        "plugins_left_out": [
            {"plugin": plugin.origin.name, "error": str(plugin.error)} for plugin in registry.plugins.left_out
        ],
    }


def _machine() -> dict[str, Any]:
    import torch

    from pah_opt.measure.environment import cpu_count, cpu_model
    from pah_opt.models.precision import multiplies_bf16, multiplies_int8

    return {
        "platform": platform.platform(), "python": platform.python_version(), "cpu": cpu_model(),
        "cpus": cpu_count(), "threads": torch.get_num_threads(), "memory_bytes": _memory_bytes(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_bfloat16": multiplies_bf16(torch.device("cpu")), "cpu_int8": multiplies_int8(torch.device("cpu")),
        "torch": torch.__version__, "cuda": torch.version.cuda, "pah_opt": installed_version("pah-opt"),
    }  # fmt: skip


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _gpus() -> list[dict[str, Any]]:
    import torch

    from pah_opt.measure.nvml import open_gpu

    found = []
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        properties = torch.cuda.get_device_properties(device)
        gpu = open_gpu(device)
        found.append({
            "name": properties.name, "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "driver": gpu.value.driver().value if gpu.value else None,
            "other_processes": gpu.value.other_processes().value if gpu.value else None,
            "counters": gpu.reason or "energy, clocks, utilization, processes",
        })  # fmt: skip
    return found


def _strategy(name: str, optimizer: Any, environment: Environment) -> dict[str, Any]:
    try:
        obstacles: tuple[Obstacle, ...] = tuple(optimizer.available(environment))
    except Exception as error:  # noqa: BLE001  # a plugin may raise anything; it cannot be used then
        obstacles = (Obstacle(f"asking it failed with {type(error).__name__}: {error}", "report this to its author"),)
    versions = {backend.distribution: environment.version(backend.distribution) for backend in optimizer.backends}
    return {"name": name, "runs_here": not obstacles, "libraries": versions, "obstacles": [str(o) for o in obstacles]}


def _optional(purpose: str, backend: Backend, environment: Environment) -> dict[str, Any]:
    missing = environment.missing([backend])
    return {
        "for": purpose, "library": backend.distribution, "version": environment.version(backend.distribution),
        "problem": str(missing[0]) if missing else None,
    }  # fmt: skip
