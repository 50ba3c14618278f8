"""What this machine can do: accelerator, library versions; and what stands in a strategy's way on it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Backend:
    """A library that a strategy needs.

    Args:
        distribution: its name on the package index, such as ``torch-pruning``.
        versions: the tested range, such as ``>=1.6,<2``; empty for any.
        install: the command that gets it; by default ``pip install 'distribution versions'``.
    """

    distribution: str
    versions: str = ""
    install: str | None = None

    @property
    def remedy(self) -> str:
        """The command that installs a version that works."""
        return self.install or f"pip install '{self.distribution}{self.versions}'"


@dataclass(frozen=True)
class Obstacle:
    """Why something cannot run here, and what to do about it."""

    reason: str
    remedy: str

    def __str__(self) -> str:
        """Render as ``reason; remedy``."""
        return f"{self.reason}; {self.remedy}"


def installed_version(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None; imports nothing."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Environment:
    """This machine, looked at only when asked; give values to describe another one (tests, planning for a server).

    Args:
        cuda: whether a CUDA device can be used; None to look.
        capability: compute capability of that device; None to look.
        versions: versions of distributions, instead of what is installed here.
    """

    cuda: bool | None = None
    capability: tuple[int, int] | None = None
    versions: dict[str, str] = field(default_factory=dict)

    @cached_property
    def has_cuda(self) -> bool:
        """Whether a CUDA device can be used."""
        if self.cuda is not None:
            return self.cuda
        import torch

        return torch.cuda.is_available()

    @cached_property
    def compute_capability(self) -> tuple[int, int] | None:
        """Compute capability of the CUDA device, or None without one."""
        if self.capability is not None or not self.has_cuda:
            return self.capability
        import torch

        return torch.cuda.get_device_capability()

    def version(self, distribution: str) -> str | None:
        """Return the version of a distribution, or None when it is not installed."""
        return self.versions.get(distribution) or installed_version(distribution)

    def missing(self, backends: Iterable[Backend]) -> tuple[Obstacle, ...]:
        """Return an Obstacle for each backend that is absent or of an untested version."""
        return tuple(obstacle for backend in backends if (obstacle := self._obstacle(backend)))

    def _obstacle(self, backend: Backend) -> Obstacle | None:
        found = self.version(backend.distribution)
        if found is None:
            return Obstacle(f"{backend.distribution} is not installed", backend.remedy)
        if not SpecifierSet(backend.versions).contains(found, prereleases=True):
            return Obstacle(
                f"{backend.distribution} {found} is installed, {backend.versions} is needed", backend.remedy
            )
        return None
