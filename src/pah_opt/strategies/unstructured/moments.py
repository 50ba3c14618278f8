"""What is known of a layer's inputs on calibration images: moments, and how far they are from the dense model's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pah_opt.errors import DataError
from pah_opt.models.covariance import Covariance

if TYPE_CHECKING:
    from torch import Tensor


class Errors:
    """Streaming moments of ``e = dense x - x``, what earlier changes did to a layer's inputs ``x``.

    Sums are kept in float64 (float32 where the device has no float64), those of ``x`` about the first batch's mean.

    Args:
        width: length of a vector.
        device: where the sums are kept.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._count = 0
        self._shift = torch.zeros(width, device=device)
        self._inputs = torch.zeros(width, dtype=dtype, device=device)
        self._errors = torch.zeros(width, dtype=dtype, device=device)
        self._products = torch.zeros(width, width, dtype=dtype, device=device)

    def update(self, inputs: Tensor, dense: Tensor) -> None:
        """Add a batch of inputs and what they are in the dense model, both ``(..., width)``."""
        rows, error = inputs.flatten(0, -2).float(), (dense - inputs).flatten(0, -2).float()
        if not self._count:
            self._shift = rows.mean(dim=0)
        rows = rows - self._shift
        self._count += len(rows)
        self._inputs += rows.sum(dim=0)
        self._errors += error.sum(dim=0)
        self._products += error.T @ rows

    @property
    def mean(self) -> Tensor:
        """Mean error, ``(width,)``."""
        return self._errors / max(self._count, 1)

    @property
    def covariance(self) -> Tensor:
        """Covariance of errors (rows) with inputs (columns), ``(width, width)``."""
        return self._products / max(self._count, 1) - torch.outer(self.mean, self._inputs / max(self._count, 1))


@dataclass(frozen=True)
class Seen:
    """A layer's inputs.

    Args:
        inputs: mean and covariance.
        errors: how they differ from the dense model's; None when that was not observed.
    """

    inputs: Covariance
    errors: Errors | None = None

    @classmethod
    def start(cls, like: Tensor, *, paired: bool) -> Seen:
        """Start at nothing, for vectors as wide as those of ``like`` and on its device."""
        width = like.shape[-1]
        return cls(Covariance(width, like.device), Errors(width, like.device) if paired else None)

    def update(self, inputs: Tensor, dense: Tensor | None) -> None:
        """Add a batch, ``(..., width)``, and the dense model's where errors are observed."""
        self.inputs.update(inputs)
        if self.errors is not None and dense is not None:
            self.errors.update(inputs, dense)

    def checked(self, path: str) -> Seen:
        """Return itself.

        Raises:
            DataError: the inputs of ``path`` are not finite.
        """
        if not self.inputs.is_finite:
            raise DataError(f"inputs of {path} are not finite on the calibration images; check the model's weights")
        return self

    def hessian(self, *, centred: bool) -> Tensor:
        """Return the second moment, float32, about the mean when a bias can take the mean up."""
        return (self.inputs.matrix if centred else self.inputs.second_moment).float()

    def error_moment(self, *, centred: bool) -> Tensor | None:
        """Return ``E[e x^T]``, float32, about the means when a bias can take them up; None without errors."""
        if self.errors is None:
            return None
        covariance = self.errors.covariance
        whole = covariance if centred else covariance + torch.outer(self.errors.mean, self.inputs.mean)
        return whole.float()

    @property
    def dense_mean(self) -> Tensor:
        """Mean of the dense model's inputs, as far as it is known."""
        return self.inputs.mean if self.errors is None else self.inputs.mean + self.errors.mean
