"""Means and covariances of what goes into a layer, as the repairs take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pah_opt.models.calibration import Covariance


@dataclass(frozen=True)
class Moments:
    """Mean, ``(width,)``, and covariance about it, ``(width, width)``; float64 where the device has it."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, seen: Covariance) -> Moments:
        """Take the moments of what was observed."""
        return cls(seen.mean, seen.matrix)

    @classmethod
    def standard(cls, width: int, device: torch.device) -> Moments:
        """Return mean zero and unit variance without correlations: what is assumed without data."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        return cls(torch.zeros(width, dtype=dtype, device=device), torch.eye(width, dtype=dtype, device=device))

    @property
    def second_moment(self) -> Tensor:
        """Second moment about zero, ``(width, width)``."""
        return self.covariance + torch.outer(self.mean, self.mean)

    def through(self, weight: Tensor, bias: Tensor | None) -> Moments:
        """Return the moments after a linear layer with ``weight``, ``(out, width)``."""
        weight = weight.to(self.mean.dtype)
        mean = weight @ self.mean
        return Moments(mean if bias is None else mean + bias.to(mean.dtype), weight @ self.covariance @ weight.T)

    def at(self, indices: Tensor) -> Moments:
        """Return the moments of some of the inputs."""
        return Moments(self.mean[indices], self.covariance[indices][:, indices])
