"""Networks that are no Vision Transformers, which every strategy must refuse by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable


class SmallConvNet(nn.Module):
    """A convolutional classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(8, 10)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return logits, ``(batch, 10)``."""
        logits: Tensor = self.classifier(self.features(pixel_values))
        return logits


class SmallRecurrentNet(nn.Module):
    """A recurrent classifier that reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.LSTM(96, 8, batch_first=True)
        self.classifier = nn.Linear(8, 10)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return logits, ``(batch, 10)``."""
        read, _ = self.rows(pixel_values.permute(0, 2, 1, 3).flatten(2))
        logits: Tensor = self.classifier(read[:, -1])
        return logits


STRANGERS: tuple[Callable[[], nn.Module], ...] = (SmallConvNet, SmallRecurrentNet)
