"""What training leaves behind besides the model: its history, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images (or what remained of the updates asked for).

    Args:
        epoch: one-based number.
        step: updates done in all.
        train_loss: mean loss of its updates.
        train_accuracy: share of training images classified correctly, as seen while training, 0 to 1.
        validation_loss: mean cross-entropy on the validation images; None without any.
        validation_accuracy: share of validation images classified correctly, 0 to 1; None without any.
        lr: learning rate of the last update.
        seconds: wall-clock time, validation included, over all runs of an interrupted training.
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    lr: float
    seconds: float

    def __str__(self) -> str:
        """Return one line for a terminal."""
        text = f"epoch {self.epoch}: loss {self.train_loss:.4f}, accuracy {self.train_accuracy:.2%}"
        if self.validation_accuracy is not None:
            text += f", validation loss {self.validation_loss:.4f}, accuracy {self.validation_accuracy:.2%}"
        return text


@dataclass(frozen=True)
class TrainResult:
    """How training went.

    Args:
        history: one record for each epoch.
        losses: loss of each update.
        steps: updates done.
        seconds: wall-clock time in all, that of earlier, interrupted runs included.
        best_epoch: one-based number of the epoch whose weights the model now has; None when these are the last ones.
        stopped: why training ended before its time; None when it did not.
        resumed_seconds: how much of ``seconds`` earlier, interrupted runs took.
    """

    history: tuple[Epoch, ...]
    losses: tuple[float, ...]
    steps: int
    seconds: float
    best_epoch: int | None = None
    stopped: str | None = None
    resumed_seconds: float = 0.0

    @property
    def validation_accuracy(self) -> float | None:
        """Validation accuracy of the weights that were kept, 0 to 1; None without validation images."""
        if not self.history:
            return None
        return self.history[(self.best_epoch or len(self.history)) - 1].validation_accuracy

    def to_data(self) -> dict[str, Any]:
        """Return everything as JSON data."""
        return {**asdict(self), "history": [asdict(epoch) for epoch in self.history], "losses": list(self.losses)}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> TrainResult:
        """Read back what :meth:`to_data` gave."""
        history = tuple(Epoch(**record) for record in data["history"])
        return cls(**{**data, "history": history, "losses": tuple(data["losses"])})
