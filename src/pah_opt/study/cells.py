"""Finished cells on disk, by the hash of everything that decides their result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pah_opt.environment import installed_version
from pah_opt.errors import ArtifactError
from pah_opt.registry import default_registry
from pah_opt.storage.atomic import write_text
from pah_opt.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pah_opt.recipe import Step

FORMAT = 1
"""Part of every key: raised when cells of an older version would mean something else."""
CORE = ("torch", "transformers", "numpy", "pillow")
"""Libraries that every cell runs on."""
OPTIONAL = ("torchao", "torch-pruning", "bitsandbytes", "accelerate", "peft")


def library_versions() -> dict[str, str]:
    """Return the versions of everything that results may come from, as a report states them."""
    return core_versions() | versions(OPTIONAL)


def core_versions() -> dict[str, str]:
    """Return the versions that decide every cell."""
    return {"pah_opt": __version__} | versions(CORE)


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those that are installed."""
    return {name: version for name in distributions if (version := installed_version(name)) is not None}


def step_versions(steps: Iterable[Step]) -> dict[str, str]:
    """Return the versions that decide cells with these steps only: of the plugins used, and of what strategies need.

    So a library that is installed later computes no cell again which it has no part in.
    """
    registry = default_registry()
    names: set[str] = set()
    for step in steps:
        registered = registry.optimizers.get(step.use)
        if registered is None:
            continue
        names |= {backend.distribution for backend in registered.optimizer.backends}
        if registered.distribution is not None and not registered.origin.built_in:
            names.add(registered.distribution)
    return versions(sorted(names))


def key_of(content: Mapping[str, Any]) -> str:
    """Return the key of a cell: the SHA-256 of JSON data, whatever the order of its keys."""
    text = json.dumps({"format": FORMAT, **content}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Store:
    """A folder of finished cells.

    Args:
        folder: of the study.
    """

    folder: Path

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a finished cell, or None where there is none or its file is damaged."""
        try:
            content = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content["result"] if isinstance(content, dict) and content.get("key") == key else None

    def put(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a finished cell, whole or not at all.

        Raises:
            ArtifactError: it cannot be written.
        """
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps({"key": key, "result": result}, indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise ArtifactError(
                f"the cell {path} cannot be written ({error}); free some space, or name another folder"
            ) from error

    def model_folder(self, key: str) -> Path:
        """Return where the model of an adaptation is kept."""
        return self.folder / "models" / key[:32]

    def checkpoint(self, key: str) -> Path:
        """Return where the state of an unfinished adaptation is kept."""
        return self.folder / "unfinished" / key[:32]

    def _path(self, key: str) -> Path:
        return self.folder / "cells" / f"{key[:32]}.json"
