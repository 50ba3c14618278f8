"""Mean and covariance of a stream of vectors; a covariance made safe to be inverted."""

from __future__ import annotations

import torch
from torch import Tensor


class Covariance:
    """Streaming mean and second moments of vectors, each with a weight if wanted.

    Sums are taken about the first batch's mean and kept in float64 (float32 where the device has no float64), so that
    activations with a large mean lose no digits.

    Args:
        width: length of a vector.
        device: where the sums are kept.
    """

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.count = 0
        """Vectors seen."""
        self.mass = 0.0
        """Sum of their weights."""
        self._shift: Tensor | None = None
        self._total = torch.zeros(width, dtype=dtype, device=device)
        self._moment = torch.zeros(width, width, dtype=dtype, device=device)

    @property
    def width(self) -> int:
        """Length of a vector."""
        return self._total.numel()

    def update(self, vectors: Tensor, weights: Tensor | None = None) -> None:
        """Add vectors.

        Args:
            vectors: ``(..., width)`` of any floating-point type.
            weights: how much each counts; broadcast to ``(...)``. One each by default.
        """
        rows = vectors.detach().reshape(-1, self.width).float()
        if self._shift is None:
            self._shift = rows.mean(dim=0)
        rows = rows - self._shift
        self.count += rows.shape[0]
        scaled = rows
        if weights is not None:
            column = weights.to(rows.device, rows.dtype).expand(vectors.shape[:-1]).reshape(-1, 1)
            self.mass += float(column.sum())
            scaled = column * rows
        else:
            self.mass += rows.shape[0]
        self._total += scaled.sum(dim=0).to(self._total.dtype)
        self._moment += (scaled.T @ rows).to(self._moment.dtype)

    @property
    def mean(self) -> Tensor:
        """Mean, ``(width,)``."""
        return self._relative_mean + self._origin

    @property
    def matrix(self) -> Tensor:
        """Covariance about the mean (divided by ``mass``), ``(width, width)``."""
        mean = self._relative_mean
        return self._moment / (self.mass or 1.0) - torch.outer(mean, mean)

    @property
    def second_moment(self) -> Tensor:
        """Second moment about zero, ``mean(x xᵀ)``, ``(width, width)``; SparseGPT's Hessian is twice this."""
        return self.matrix + torch.outer(self.mean, self.mean)

    @property
    def is_finite(self) -> bool:
        """Whether every sum is a finite number."""
        return bool(torch.isfinite(self._moment).all())

    @property
    def _relative_mean(self) -> Tensor:
        return self._total / (self.mass or 1.0)

    @property
    def _origin(self) -> Tensor:
        return torch.zeros_like(self._total) if self._shift is None else self._shift.to(self._total.dtype)


def damped(covariance: Tensor, ridge: float) -> Tensor:
    """Add ``ridge`` times the mean variance to every variance; a covariance of zeros becomes the identity."""
    mean = covariance.diagonal().mean()
    # Where nothing varies, any positive multiple of the identity predicts nothing from nothing.
    extra = torch.where(mean > 0, ridge * mean, torch.ones_like(mean))
    return covariance + extra * torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
